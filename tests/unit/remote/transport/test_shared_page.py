"""The channel in shared memory against a peer that plays on the same page: honest, late, dead, lying."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.contract.model import Effect, HostOutput, IrqLine, Reset
from kvmbox.remote.channel.deadlines import REPLY_SLICES, WAIT_SLICE_MS
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.process.spin_permits import Spinner, SpinPermits
from kvmbox.remote.transport.interface import Link, Waits
from kvmbox.remote.transport.memory_barrier import fence
from kvmbox.remote.transport.shared_page import ASK_EVERY, MAX_IDLE_RINGS, NAP_MS, NAP_RINGS, PageTransport
from kvmbox.wire import page_layout, protocol
from kvmbox.wire.effect_kinds import BY_CLASS, EFFECT
from kvmbox.wire.effects import encode_effects
from kvmbox.wire.page_layout import DOORBELL, DOORBELLS_READ
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, NO_DEADLINE, request_word
from tests.support.halves import Half
from tests.support.links import Opening
from tests.support.log import Log

NOW: Final = 5_000
READ_OF_COM1: Final = request_word(protocol.READ, 0, 1)
READ_REPLY: Final = protocol.READ | protocol.REPLY


class FakeSpin(SpinPermits):
    """Notes who asks for the right to spin, and who disappoints."""

    def __init__(self) -> None:
        super().__init__(None, (), pid_of=lambda _name: 0)
        self.wanted = 0
        self.told: list[str] = []
        self.closed = 0

    def wanted_by(self, _spinner: Spinner) -> None:
        self.wanted += 1

    def crowded(self, _spinner: Spinner) -> None:
        self.told.append("crowded")

    def late(self, _spinner: Spinner, lost: int) -> None:
        assert lost > 0
        self.told.append("late")

    def asleep(self, _spinner: Spinner) -> None:
        self.told.append("asleep")

    def replaced(self, _spinner: Spinner) -> None:
        self.closed += 1


class Peer:
    """A channel, and everything that the far end can do to its page and its doorbells."""

    def __init__(self, **options: Any) -> None:
        """`options` are those of the channel, but for `seams`: what the transport touches the world with."""
        seams = options.pop("seams", {})
        half: Half = options.pop("half", Half())
        self.page = mmap.mmap(-1, page_layout.SIZE)
        self.data = memoryview(self.page)
        self.words = self.data.cast("Q")
        self.doorbell, bell_of_device = os.pipe()  # the device's end of the one, the VMM's of the other
        vmm_doorbell, self.bell_of_vmm = os.pipe()
        self.log = Log()
        self.now = NOW
        self.spin = FakeSpin()
        grants = [
            Grants("COM1", irq_lines=[self.log.note("irq")], output=self.log.note("output")),
            Grants("COM2", reset=self.log.note("reset")),
        ]
        self.link = Link(half.page, (bell_of_device, vmm_doorbell), (), self.page, self.spin)

        def reach(device_type: str, waits: Waits) -> PageTransport:
            return half.page(self.link, device_type, waits, **seams)

        self.channel = half.channel(
            "uart",
            Opening(reach),
            grants,
            now=lambda: self.now,
            deadline_changed=self.log.note("deadline"),
            **options,
        )

    @property
    def transport(self) -> PageTransport:
        assert isinstance(self.channel.transport, PageTransport)
        return self.channel.transport

    def close(self) -> None:
        self.words.release()
        self.data.release()
        self.channel.close()
        for descriptor in (self.doorbell, self.bell_of_vmm):
            if descriptor >= 0:
                os.close(descriptor)

    def die(self) -> None:
        """Both ends of a process that is gone."""
        os.close(self.doorbell)
        os.close(self.bell_of_vmm)
        self.doorbell = self.bell_of_vmm = -1

    def reply(
        self,
        kind: int = READ_REPLY,
        *,
        device: int = 0,
        size: int = 1,
        count: int = 0,
        sequence: int = 1,
        deadline: int = NO_DEADLINE,
        value: int = 0,
        zero: int = 0,
        body: bytes = b"",
        length: int | None = None,
        ring: bool = False,
    ) -> None:
        """Hand over a reply to a byte read of COM1, the first request, but for what the test changes."""
        announced = len(body) if length is None else length
        frame = HEADER.pack(kind, device, size, count, sequence, deadline, value, zero, announced) + body
        self.data[page_layout.REPLY + 8 : page_layout.REPLY + len(frame)] = frame[8:]
        self.words[page_layout.REPLY_WORD] = int.from_bytes(frame[:8], "little")
        if ring:
            self.ring()

    def ring(self) -> None:
        os.write(self.bell_of_vmm, DOORBELL)

    def request(self) -> tuple[int, ...]:
        """The header that lies there."""
        return HEADER.unpack_from(self.data, page_layout.REQUEST)

    def read(self, limit: int = 0xFF) -> int:
        """The vCPU thread's byte read at offset 5 of COM1."""
        return self.channel.access(READ_OF_COM1, 5, 0, limit)


@pytest.fixture
def make_peer(half: Half) -> Iterator[Callable[..., Peer]]:
    """A peer with options of the channel that the test wants."""
    peers: list[Peer] = []

    def make(**options: Any) -> Peer:
        if "seams" not in options:  # compiled code has none: those tests are of the steps that Python makes
            options["half"] = half
        peers.append(Peer(**options))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


@pytest.fixture
def peer(make_peer: Callable[..., Peer]) -> Peer:
    return make_peer()


@pytest.fixture(params=[False, True], ids=["sleeping", "spinning"])
def ready(request: pytest.FixtureRequest, peer: Peer) -> Peer:
    """A peer whose replies lie there before they are asked for, in both ways to wait."""
    peer.transport.allow_spinning(request.param)
    return peer


# --- What is asked, and what is accepted -----------------------------------------------------------------


def test_access_lays_the_request_down_and_takes_the_reply(ready: Peer) -> None:
    ready.reply(value=0x60)
    assert ready.read() == 0x60
    assert ready.request() == (protocol.READ, 0, 1, 0, 1, NOW, 0, 5, 0)
    ready.reply(sequence=2, value=0x61)
    assert ready.read() == 0x61
    assert ready.request()[4] == 2
    assert ready.channel.waiting == 0


def test_access_of_a_write_carries_its_value(ready: Peer) -> None:
    ready.reply(protocol.WRITE | protocol.REPLY, size=4)
    assert ready.channel.access(request_word(protocol.WRITE, 0, 4), 3, 0xDEADBEEF, 0) == 0
    assert ready.request() == (protocol.WRITE, 0, 4, 0, 1, NOW, 0xDEADBEEF, 3, 0)


@pytest.mark.parametrize("spins", [False, True])
def test_access_applies_effects_in_order_and_tells_the_deadline(
    make_peer: Callable[..., Peer], spins: bool
) -> None:
    def wait_for_output() -> None:
        mine.log.append(("wait",))

    mine: Peer = make_peer(wait_for_output=wait_for_output)
    mine.transport.allow_spinning(spins)
    effects: list[tuple[int, Effect]] = [(0, IrqLine(0, 1)), (0, HostOutput(b"hi")), (0, IrqLine(0, 0))]
    mine.reply(count=3, deadline=9_000, value=7, body=encode_effects(effects))
    assert mine.read() == 7
    assert mine.log == [
        ("irq", 1, 0),
        ("output", b"hi"),
        ("irq", 0, 0),
        ("deadline", 9_000, NOW),
        ("wait",),
    ]
    # The same deadline again is no news, and there is nothing to wait for.
    mine.log.clear()
    mine.reply(sequence=2, deadline=9_000)
    mine.read()
    assert mine.log == []


def test_access_takes_the_longest_reply_that_there_is(ready: Peer) -> None:
    text = bytes(index & 0xFF for index in range(MAX_PAYLOAD - EFFECT.size))
    ready.reply(count=1, body=encode_effects([(0, HostOutput(text))]))
    ready.read()
    assert ready.log[0] == ("output", text)


@pytest.mark.parametrize("length", [MAX_PAYLOAD + 1, 8192, 2**31, 2**32 - 1])
def test_payload_that_is_longer_than_a_frame_breaks_the_protocol(ready: Peer, length: int) -> None:
    ready.reply(count=1, length=length)
    with pytest.raises(ProtocolError, match=f"a payload of {length} bytes"):
        ready.read()
    assert ready.log == []


@pytest.mark.parametrize(
    "lie",
    [
        {"sequence": 2},
        {"sequence": 0},
        {"sequence": 2**32 - 1},
        {"kind": protocol.WRITE | protocol.REPLY},
        {"kind": protocol.READ},
        {"device": 1},
        {"size": 2},
        {"zero": protocol.MAX_STEADY + 1},
        {"value": 0x100},
        {"value": 2**64 - 1},
        {"count": 1},
        {"body": b"stray"},
        {"count": 1, "body": encode_effects([(0, Reset())])},
        {"count": 1, "body": encode_effects([(1, HostOutput(b"x"))])},
        {"count": 1, "body": encode_effects([(2, HostOutput(b"x"))])},
        {"count": 2, "body": encode_effects([(0, HostOutput(b"x"))])},
        {"count": 1, "body": EFFECT.pack(BY_CLASS[HostOutput].tag, 0, 0, 0, 5) + b"four"},
    ],
    ids=str,
)
def test_reply_that_lies_breaks_the_protocol_without_effect(ready: Peer, lie: dict[str, Any]) -> None:
    ready.reply(**lie)
    with pytest.raises(ProtocolError, match="device process 'uart' broke the protocol"):
        ready.read()
    assert ready.log == []
    # It is of no use any more, whatever it says then.
    ready.reply(sequence=2)
    with pytest.raises(ProtocolError):
        ready.read()


def test_error_frame_is_the_devices_failure(ready: Peer) -> None:
    ready.reply(protocol.ERROR, size=0, body=b"ZeroDivisionError: by\nzero")
    with pytest.raises(DeviceProcessError, match="'uart' failed: ZeroDivisionError: by"):
        ready.read()


@pytest.mark.parametrize("spins", [False, True])
def test_recorder_gets_the_copies_that_were_checked(make_peer: Callable[..., Peer], spins: bool) -> None:
    seen: list[tuple[bytes, bytes]] = []
    ready = make_peer(record=lambda sent, frame: seen.append((sent, frame)))
    ready.transport.allow_spinning(spins)
    ready.reply(value=3)
    assert ready.read() == 3
    expected = HEADER.pack(protocol.READ, 0, 1, 0, 1, NOW, 0, 5, 0)
    assert seen == [(expected, HEADER.pack(READ_REPLY, 0, 1, 0, 1, NO_DEADLINE, 3, 0, 0))]


def test_request_and_transact_carry_a_payload(peer: Peer) -> None:
    peer.reply(protocol.RECEIVE | protocol.REPLY, size=0, value=3)
    assert peer.channel.request(protocol.RECEIVE, payload=b"abc", limit=3) == (3, b"")
    start = page_layout.REQUEST + HEADER.size
    assert bytes(peer.data[start : start + 3]) == b"abc"
    assert peer.request()[8] == 3
    peer.reply(protocol.WRITE_RUN | protocol.REPLY, size=0, sequence=2)
    peer.channel.transact(protocol.WRITE_RUN, 0, 4, b"x" * MAX_PAYLOAD)
    assert peer.request() == (protocol.WRITE_RUN, 0, 0, 0, 2, NOW, 0, 4, MAX_PAYLOAD)
    assert bytes(peer.data[start : start + MAX_PAYLOAD]) == b"x" * MAX_PAYLOAD


def test_snapshot_has_a_payload_and_no_effects(peer: Peer) -> None:
    peer.reply(protocol.SNAPSHOT | protocol.REPLY, size=0, value=5, body=b"state")
    assert peer.channel.request(protocol.SNAPSHOT, limit=100) == (5, b"state")
    body = encode_effects([(0, IrqLine(0, 1))]) + b"state"
    peer.reply(protocol.SNAPSHOT | protocol.REPLY, size=0, sequence=2, count=1, value=5, body=body)
    with pytest.raises(ProtocolError, match="an effect in the reply to snapshot"):
        peer.channel.request(protocol.SNAPSHOT, limit=100)
    assert peer.log == []


def test_connect_starts_anew_on_another_page(peer: Peer) -> None:
    peer.transport.allow_spinning(True)
    peer.reply(value=1)
    peer.read()
    old_doorbell, old_bell = peer.doorbell, peer.bell_of_vmm
    peer.words.release()
    peer.data.release()
    page = mmap.mmap(-1, page_layout.SIZE)
    peer.data = memoryview(page)
    peer.words = peer.data.cast("Q")
    peer.doorbell, bell_of_device = os.pipe()
    vmm_doorbell, peer.bell_of_vmm = os.pipe()
    peer.channel.connect(Link(PageTransport, (bell_of_device, vmm_doorbell), (), page, peer.spin))
    assert peer.spin.closed == 1
    peer.reply(sequence=2, value=9)
    assert peer.read() == 9
    # Nobody spins there unless the right is given again.
    assert peer.words[page_layout.MAY_SPIN] == 0
    assert os.read(peer.doorbell, 9) == DOORBELL
    os.close(old_doorbell)
    with pytest.raises(BrokenPipeError):
        os.write(old_bell, DOORBELL)
    os.close(old_bell)


# --- Waiting, with real pipes ----------------------------------------------------------------------------


@pytest.mark.parametrize("spins", [False, True])
def test_reply_that_comes_while_the_vmm_sleeps_wakes_it(peer: Peer, spins: bool) -> None:
    peer.transport.allow_spinning(spins)
    peer.words[page_layout.DEVICE_WAITS] = 1
    answers: list[int] = []
    vcpu_thread = threading.Thread(target=lambda: answers.append(peer.read()), daemon=True)
    vcpu_thread.start()
    # The flag stays up: it may have been seen twice.
    assert os.read(peer.doorbell, 9) in (DOORBELL, 2 * DOORBELL)
    assert peer.channel.waiting == 1
    while not peer.words[page_layout.VMM_WAITS]:
        pass
    peer.reply(value=5, ring=True)
    vcpu_thread.join(30)
    assert answers == [5]
    assert peer.words[page_layout.VMM_WAITS] == 0


@pytest.mark.parametrize("spins", [False, True])
def test_run_of_writes_is_waited_for_as_an_access_is(peer: Peer, spins: bool) -> None:
    """A holder of the right that is always asleep loses the right, whatever it is asked."""
    peer.transport.allow_spinning(spins)
    peer.words[page_layout.DEVICE_WAITS] = 1
    run = threading.Thread(
        target=lambda: peer.channel.transact(protocol.WRITE_RUN, 0, 0, b"text"), daemon=True
    )
    run.start()
    assert os.read(peer.doorbell, 9) in (DOORBELL, 2 * DOORBELL)
    while not peer.words[page_layout.VMM_WAITS]:
        pass
    peer.reply(protocol.WRITE_RUN | protocol.REPLY, size=0, ring=True)
    run.join(30)
    assert not run.is_alive()
    assert peer.words[page_layout.VMM_WAITS] == 0
    # On a busy host this test itself answers late, which is a complaint of its own.
    assert [told for told in peer.spin.told if told != "crowded"] == (["asleep"] if spins else [])


@pytest.mark.parametrize("spins", [False, True])
def test_end_of_the_doorbell_ends_the_wait(peer: Peer, spins: bool) -> None:
    peer.transport.allow_spinning(spins)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            peer.read()
        except DeviceProcessError as error:
            caught.append(error)

    vcpu_thread = threading.Thread(target=read, daemon=True)
    vcpu_thread.start()
    while not peer.words[page_layout.VMM_WAITS]:
        pass
    peer.die()
    vcpu_thread.join(30)
    assert [type(error) for error in caught] == [DeviceGoneError]


def test_process_that_is_gone_is_told_by_its_pipe(ready: Peer) -> None:
    ready.words[page_layout.DEVICE_WAITS] = 1
    ready.die()
    with pytest.raises(DeviceGoneError, match="Broken pipe"):
        ready.read()


def test_last_words_of_a_process_that_is_gone_are_heard(ready: Peer) -> None:
    ready.words[page_layout.DEVICE_WAITS] = 1
    ready.reply(protocol.ERROR, size=0, body=b"KeyError: 5")
    ready.die()
    with pytest.raises(DeviceProcessError, match="failed: KeyError: 5"):
        ready.read()


def test_request_without_an_answer_counts_as_hung(peer: Peer) -> None:
    with pytest.raises(DeviceProcessError, match="is hung"):
        peer.channel.request(protocol.ADVANCE, slices=1)
    with pytest.raises(DeviceProcessError, match="is hung"):
        peer.read()


def test_request_does_not_wait_for_room_among_bells_that_nobody_took(peer: Peer) -> None:
    os.write(peer.transport.bell_of_device, bytes(fcntl.fcntl(peer.doorbell, fcntl.F_GETPIPE_SZ)))
    peer.words[page_layout.DEVICE_WAITS] = 1
    peer.reply(protocol.ADVANCE | protocol.REPLY, size=0)
    assert peer.channel.request(protocol.ADVANCE) == (0, b"")


# --- Waiting, step by step -------------------------------------------------------------------------------


NAMES: Final = {
    page_layout.REQUEST_WORD: "request",
    page_layout.REPLY_WORD: "reply",
    page_layout.DEVICE_WAITS: "DEVICE_WAITS",
    page_layout.VMM_WAITS: "VMM_WAITS",
    page_layout.MAY_SPIN: "MAY_SPIN",
}
LOOKS: Final = 3


class Words:
    """The page as words: each look and each store is a step."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __getitem__(self, index: int) -> int:
        self._steps.step(f"look at {NAMES[index]}")
        return self._steps.peer.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._steps.step(f"{NAMES[index]} = {value}" if index >= page_layout.DEVICE_WAITS else NAMES[index])
        self._steps.peer.words[index] = value

    def release(self) -> None:
        pass


class View:
    """The page as bytes, as it is, and as words, spied upon."""

    def __init__(self, steps: Steps, page: mmap.mmap) -> None:
        self._steps = steps
        self.data = memoryview(page)

    def cast(self, _format: str) -> Words:
        return Words(self._steps)

    def __getitem__(self, place: slice) -> memoryview:
        return self.data[place]

    def __setitem__(self, place: slice, content: bytes) -> None:
        self.data[place] = content

    def release(self) -> None:
        self.data.release()


class Doorbell:
    """The doorbell of the VMM as a poll object: it rings when the test says so."""

    def __init__(self, rings: int) -> None:
        self.rings = rings
        self.patience: list[int] = []

    def register(self, *_arguments: int) -> None:
        pass

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        self.patience.append(milliseconds)
        self.rings -= 1
        return [(0, 1)] if self.rings >= 0 else []


class Steps:
    """Notes the steps of the channel; `before` has what the peer does just before a step."""

    def __init__(self, make_peer: Callable[..., Peer], **seams: Any) -> None:
        self.steps: list[str] = []
        self.before: list[tuple[str, Callable[[], None]]] = []
        self.bell = DOORBELL
        self.peer = make_peer(
            seams={
                "view": lambda page: View(self, page),
                "pack": self._pack_rest,
                "unpack": self._unpack_from,
                "fence": lambda: self.step("fence"),
                "looks": LOOKS,
                "read": self._read,
                "write": self._write,
            }
            | seams
        )

    def step(self, what: str) -> None:
        if self.before and self.before[0][0] == what:
            self.before.pop(0)[1]()
        self.steps.append(what)

    def _pack_rest(self, view: View, *arguments: int) -> None:
        self.step("rest of the request")
        struct.pack_into("<QQQ", view.data, *arguments)

    def _unpack_from(self, view: View, at: int) -> tuple[Any, ...]:
        self.step("copy")
        return protocol.WORDS.unpack_from(view.data, at)

    def _read(self, descriptor: int, size: int) -> bytes:
        assert (descriptor, size) == (self.peer.transport.doorbell, DOORBELLS_READ)
        self.step("sleep")
        return self.bell

    def _write(self, descriptor: int, data: bytes) -> int:
        assert (descriptor, data) == (self.peer.transport.bell_of_device, DOORBELL)
        self.step("ring")
        return 1


@pytest.fixture
def steps(make_peer: Callable[..., Peer]) -> Steps:
    return Steps(make_peer)


ASK: Final = ["rest of the request", "request", "look at DEVICE_WAITS"]
TOO_LATE: Final = ["fence", "look at DEVICE_WAITS", "VMM_WAITS = 1", "fence", "look at reply"]
SLEEP: Final = [*TOO_LATE[2:], "sleep"]
AWAKE: Final = ["look at reply", "VMM_WAITS = 0", "copy"]


def test_spinning_access_makes_no_system_call(steps: Steps) -> None:
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    steps.before = [("look at reply", steps.peer.reply)]
    steps.peer.read()
    assert steps.steps == [*ASK, "look at reply", "copy"]
    assert not steps.peer.spin.told


def test_spinning_access_rings_for_a_device_that_waits(steps: Steps) -> None:
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    steps.before = [
        ("look at DEVICE_WAITS", lambda: steps.peer.words.__setitem__(page_layout.DEVICE_WAITS, 1)),
        ("ring", steps.peer.reply),
    ]
    steps.peer.read()
    assert steps.steps == [*ASK, "ring", "look at reply", "copy"]


def test_spinning_access_that_gets_no_reply_sleeps_after_flag_fence_and_a_last_look(steps: Steps) -> None:
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    steps.before = [("sleep", steps.peer.reply)]
    steps.peer.read()
    assert steps.steps == [*ASK, *["look at reply"] * LOOKS, *TOO_LATE, *SLEEP, *AWAKE]


def test_spinner_that_does_not_answer_within_a_nap_is_reported_before_the_vmm_sleeps(
    make_peer: Callable[..., Peer],
) -> None:
    doorbell = Doorbell(0)
    steps = Steps(make_peer, poll=lambda: doorbell)
    told: list[list[str]] = []
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()

    def answer() -> None:
        told.append(list(steps.peer.spin.told))
        steps.peer.reply()

    steps.before = [("sleep", answer)]
    steps.peer.read()
    assert told == [["crowded"]]
    assert steps.peer.spin.told == ["crowded"]
    assert doorbell.patience == [NAP_MS]


@pytest.mark.parametrize("stale", [0, 1, NAP_RINGS - 2])
def test_spinner_that_answers_within_a_nap_is_late(make_peer: Callable[..., Peer], stale: int) -> None:
    doorbell = Doorbell(NAP_RINGS)
    steps = Steps(make_peer, poll=lambda: doorbell)
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    steps.before = [("sleep", lambda: None)] * stale + [("sleep", steps.peer.reply)]
    steps.peer.read()
    nap = ["sleep", "look at reply"] * (stale + 1)
    assert steps.steps == [*ASK, *["look at reply"] * LOOKS, *TOO_LATE, *nap, "VMM_WAITS = 0", "copy"]
    assert steps.peer.spin.told == ["late"]


def test_spinner_that_had_slept_and_answers_within_a_nap_is_not_late(
    make_peer: Callable[..., Peer],
) -> None:
    doorbell = Doorbell(NAP_RINGS)
    steps = Steps(make_peer, poll=lambda: doorbell)
    steps.peer.transport.allow_spinning(True)
    steps.peer.words[page_layout.DEVICE_WAITS] = 1
    steps.before = [("sleep", steps.peer.reply)]
    steps.peer.read()
    assert steps.peer.spin.told == ["asleep"]


def test_spinner_that_rings_and_rings_is_not_waited_for_in_a_nap(make_peer: Callable[..., Peer]) -> None:
    doorbell = Doorbell(10**6)
    steps = Steps(make_peer, poll=lambda: doorbell)
    steps.peer.transport.allow_spinning(True)
    with pytest.raises(ProtocolError, match="rings and rings"):
        steps.peer.read()
    assert steps.peer.spin.told == ["crowded"]
    assert len(doorbell.patience) == NAP_RINGS


@pytest.mark.parametrize("spins", [False, True])
def test_device_that_had_slept_is_reported_if_it_may_spin(peer: Peer, spins: bool) -> None:
    peer.transport.allow_spinning(spins)
    peer.words[page_layout.DEVICE_WAITS] = 1
    peer.reply(value=3)
    assert peer.read() == 3
    assert peer.spin.told == (["asleep"] if spins else [])


def test_spinning_access_looks_a_second_time_whether_the_device_waits(steps: Steps) -> None:
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    steps.before = [
        ("fence", lambda: steps.peer.words.__setitem__(page_layout.DEVICE_WAITS, 1)),
        ("sleep", steps.peer.reply),
    ]
    steps.peer.read()
    second_look = [*TOO_LATE[:2], "ring", *TOO_LATE[2:]]
    assert steps.steps == [*ASK, *["look at reply"] * LOOKS, *second_look, *SLEEP, *AWAKE]


@pytest.mark.parametrize("moment", [*TOO_LATE[1:3], "look at reply"])
def test_reply_that_comes_while_the_vmm_falls_asleep_is_taken(steps: Steps, moment: str) -> None:
    steps.peer.transport.allow_spinning(True)
    steps.steps.clear()
    looks = [("look at reply", lambda: None)] * LOOKS
    steps.before = [("look at DEVICE_WAITS", lambda: None), *looks, (moment, steps.peer.reply)]
    steps.peer.read()
    assert steps.steps == [*ASK, *["look at reply"] * LOOKS, *TOO_LATE, "VMM_WAITS = 0", "copy"]


def test_last_words_that_come_with_the_end_of_the_doorbell_are_heard(steps: Steps) -> None:
    steps.bell = b""
    steps.before = [("sleep", steps.peer.reply)]
    steps.peer.read()
    assert steps.steps[-4:] == ["sleep", "look at reply", "VMM_WAITS = 0", "copy"]


def test_access_that_must_not_spin_rings_in_any_case(steps: Steps) -> None:
    steps.before = [("sleep", steps.peer.reply)]
    steps.peer.read()
    assert steps.steps == [
        "rest of the request",
        "VMM_WAITS = 1",
        "request",
        "ring",
        *TOO_LATE[2:],
        "sleep",
        *AWAKE,
    ]
    assert not steps.peer.spin.told


def test_request_of_the_main_thread_looks_behind_a_fence_whether_to_ring(steps: Steps) -> None:
    steps.before = [("look at reply", lambda: steps.peer.reply(protocol.ADVANCE | protocol.REPLY, size=0))]
    steps.peer.channel.request(protocol.ADVANCE)
    assert steps.steps == [
        *("VMM_WAITS = 1", "request", "fence", "look at DEVICE_WAITS"),
        *("VMM_WAITS = 1", "fence", "look at reply", "VMM_WAITS = 0", "copy"),
    ]


def test_right_to_spin_is_told_to_the_device(steps: Steps) -> None:
    for allowed in (True, False):
        steps.peer.transport.allow_spinning(allowed)
        assert steps.peer.words[page_layout.MAY_SPIN] == allowed


def test_right_to_spin_may_still_be_taken_from_a_transport_that_was_closed(peer: Peer) -> None:
    # Another channel gets it while the main thread puts another process behind this one.
    transport = peer.transport
    peer.channel.disconnect()
    assert peer.spin.closed == 1
    transport.allow_spinning(False)


def test_every_64th_access_without_spinning_asks_for_the_right(steps: Steps) -> None:
    for sequence in range(1, ASK_EVERY):
        steps.peer.reply(sequence=sequence)
        steps.peer.read()
    assert steps.peer.spin.wanted == 0
    steps.peer.reply(sequence=ASK_EVERY)
    steps.peer.read()
    assert steps.peer.spin.wanted == 1


# --- Floods ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spins", [False, True])
def test_device_that_rings_and_does_not_answer_breaks_the_protocol(steps: Steps, spins: bool) -> None:
    steps.peer.transport.allow_spinning(spins)
    with pytest.raises(ProtocolError, match="rings and rings"):
        steps.peer.read()
    assert steps.steps.count("sleep") == MAX_IDLE_RINGS


def test_bells_of_earlier_replies_are_no_flood(steps: Steps) -> None:
    """An honest process leaves one for each reply that was found without it: up to a pipe full of them."""
    stale = (1 << 16) // DOORBELLS_READ
    steps.before = [("sleep", lambda: None)] * stale + [("sleep", steps.peer.reply)]
    steps.peer.read()
    assert steps.steps.count("sleep") == stale + 1


class RingingPoll:
    """A doorbell that rings at the end of each so many slices, and of those only."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.waited = 0

    def register(self, *_arguments: int) -> None:
        pass

    def poll(self, milliseconds: int) -> list[tuple[int, int]]:
        if not milliseconds:
            return []
        assert milliseconds == WAIT_SLICE_MS
        self.waited += 1
        return [] if self.waited % self.every else [(0, 1)]


@pytest.mark.parametrize("every", range(1, REPLY_SLICES + 1))
def test_bells_do_not_make_the_main_threads_wait_longer_than_twice_its_patience(
    make_peer: Callable[..., Peer], every: int
) -> None:
    poll = RingingPoll(every)
    steps = Steps(make_peer, poll=lambda: poll)
    with pytest.raises(DeviceProcessError, match="is hung: no reply within 500 ms"):
        steps.peer.channel.request(protocol.ADVANCE)
    assert poll.waited <= 2 * REPLY_SLICES


# --- A page that changes while it is read ----------------------------------------------------------------


class WordsOf:
    """The words of a hostile page, as they are."""

    def __init__(self, page: HostilePage) -> None:
        self._page = page

    def __getitem__(self, index: int) -> int:
        return self._page.peer.words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._page.peer.words[index] = value

    def release(self) -> None:
        pass


class HostilePage:
    """The page of a process that rewrites its reply after every access of the VMM to it.

    `attack(number)` is called after the `number`-th copy; `copies` has the places that were read.
    """

    def __init__(self, make_peer: Callable[..., Peer]) -> None:
        self.attack: Callable[[int], None] = lambda _number: None
        self.copies: list[tuple[int, int]] = []
        self.peer: Peer = make_peer(
            seams={
                "view": lambda _page: self,
                "pack": lambda _view, *values: struct.pack_into("<QQQ", self.peer.data, *values),
                "unpack": lambda _view, at: self.unpack_from(at),
            }
        )

    def cast(self, _format: str) -> WordsOf:
        return WordsOf(self)

    def unpack_from(self, at: int) -> tuple[Any, ...]:
        found = protocol.WORDS.unpack_from(self.peer.data, at)
        self._copied(at, at + HEADER.size)
        return found

    def __getitem__(self, place: slice) -> bytes:
        found = bytes(self.peer.data[place])
        self._copied(place.start, place.stop)
        return found

    def __setitem__(self, place: slice, content: bytes) -> None:
        self.peer.data[place] = content

    def _copied(self, start: int, end: int) -> None:
        self.copies.append((start, end))
        self.attack(len(self.copies))

    def release(self) -> None:
        pass


LIES: Final[list[dict[str, Any]]] = [
    {"value": 0xFFFF},
    {"sequence": 99},
    {"count": 1, "body": encode_effects([(1, Reset())])},
    {"count": 0, "length": 0},
    {"count": 1, "length": 2**32 - 1},
]


@pytest.mark.parametrize("lie", LIES, ids=str)
@pytest.mark.parametrize("spins", [False, True])
def test_nothing_changes_after_it_was_copied(
    make_peer: Callable[..., Peer], lie: dict[str, Any], spins: bool
) -> None:
    page = HostilePage(make_peer)
    peer = page.peer
    peer.transport.allow_spinning(spins)
    body = encode_effects([(0, HostOutput(b"good")), (0, IrqLine(0, 1))])
    page.attack = lambda _number: peer.reply(**lie)

    peer.reply(value=0x41)
    assert peer.read() == 0x41
    assert page.copies == [(page_layout.REPLY, page_layout.REPLY + HEADER.size)]

    page.copies.clear()
    page.attack = lambda number: peer.reply(**lie) if number == 2 else None
    peer.reply(sequence=2, count=2, value=0x42, deadline=77, body=body)
    assert peer.read() == 0x42
    start = page_layout.REPLY + HEADER.size
    assert page.copies == [(page_layout.REPLY, start), (start, start + len(body))]  # each byte once
    assert peer.log == [("output", b"good"), ("irq", 1, 0), ("deadline", 77, NOW)]


def test_payload_that_is_replaced_before_it_is_copied_is_judged_as_it_is_copied(
    make_peer: Callable[..., Peer],
) -> None:
    page = HostilePage(make_peer)
    peer = page.peer

    def attack(number: int) -> None:
        if number == 1:
            body = encode_effects([(1, Reset())])  # granted, but not to a read
            start = page_layout.REPLY + HEADER.size
            peer.data[start : start + len(body)] = body

    page.attack = attack
    peer.reply(count=1, body=encode_effects([(0, IrqLine(0, 1))]))
    with pytest.raises(ProtocolError, match="effect Reset of COM2: not granted"):
        peer.read()
    assert peer.log == []


def test_reply_word_that_flickers_is_looked_at_until_it_changes_and_then_checked(steps: Steps) -> None:
    peer = steps.peer
    peer.transport.allow_spinning(True)
    # It changes, and is back before the header is copied: what was copied is an old reply.
    steps.before = [
        ("look at reply", lambda: peer.words.__setitem__(page_layout.REPLY_WORD, 1)),
        ("copy", lambda: peer.words.__setitem__(page_layout.REPLY_WORD, 0)),
    ]
    with pytest.raises(ProtocolError, match="reply 0 to request 1"):
        peer.read()


def test_fence_comes_back_though_others_pass_it_at_the_same_time() -> None:
    def pass_it() -> None:
        for _ in range(1000):
            fence()

    threads = [threading.Thread(target=pass_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_ring_failing_otherwise_names_the_reason(make_peer: Callable[..., Peer]) -> None:
    def write(_descriptor: int, _data: bytes) -> int:
        raise OSError(errno.EBADF, "Bad file descriptor")

    peer = make_peer(seams={"write": write})
    with pytest.raises(DeviceGoneError, match="Bad file descriptor"):
        peer.read()
