"""The run loop where KVM coalesces writes: they come before what must not overtake them, or wait."""

from __future__ import annotations

import errno
import struct
import sys
import threading
import time
from typing import cast

import pytest

from kvmbox.base.outcome import GUEST_CRASHED, Outcome
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.remote.bus.proxy import DeviceProxy
from kvmbox.remote.bus.routing import Bus, Mapping
from kvmbox.remote.channel.connection import Channel
from kvmbox.run.vcpu.coalesced_ring import ENTRIES
from kvmbox.wire import protocol
from tests.support.fake_room import FakeRoom
from tests.support.halves import Half
from tests.support.kernel_ring import RING, kernel_writes
from tests.support.scripted_vcpu import DATA, IN, OUT, FakeVcpu

COM1, RTC, POST = 0x3F8, 0x70, 0x80


class FakeChannel:
    """Notes what the channel of a device process is asked; reads give 0x5a."""

    steady = None
    is_started = True

    def __init__(self, name: str, log: list[tuple[object, ...]]) -> None:
        self._name = name
        self._log = log

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        self._log.append((self._name, protocol.KIND_NAMES[word & 0xFF], offset, value))
        return 0x5A if limit else 0

    def write_string(self, _device: int, offset: int, _size: int, data: bytes) -> None:
        self._log.append((self._name, "write string", offset, data))

    def transact(self, kind: int, _device: int, offset: int, payload: bytes) -> None:
        self._log.append((self._name, protocol.KIND_NAMES[kind], offset, payload))

    def request(self, kind: int, *, device: int, offset: int, payload: bytes) -> tuple[int, bytes]:
        assert (kind, device) == (protocol.WRITE_RUN, 0)
        time.sleep(0)  # the process answers in its own time: other threads run
        self._log.append((self._name, protocol.KIND_NAMES[kind], offset, payload))
        return 0, b""


class Rig:
    """COM1, whose writes exit; the RTC, whose index does not; POST, whose only port does not."""

    def __init__(self, half: Half) -> None:
        self.log: list[tuple[object, ...]] = []
        self.room = FakeRoom()
        self.decided: list[Outcome] = []
        self.vcpu = FakeVcpu()
        ports, mmio = Bus(16), Bus(52)
        self.uart, self.rtc, self.post = (self._proxy(name) for name in ("uart", "rtc", "post"))
        for first, count, device in ((COM1, 8, self.uart), (RTC, 2, self.rtc), (POST, 1, self.post)):
            ports.attach(Mapping(first, count, device, direct=device))
        mmio.attach(Mapping(0xD000_0000, 8, self.uart, direct=self.uart))
        self.ring = half.ring(
            self.vcpu.words64,
            self.vcpu.words32,
            self.vcpu.bytes,
            {RTC: (self.rtc, 0), POST: (self.post, 0)},
            room=self.room,
        )
        self.control = half.control(self.vcpu.kick)
        self.loop = half.loop(
            self.control,
            cast(Vcpu, self.vcpu),
            ports,
            mmio,
            read_memory=lambda _address: None,
            ring=self.ring,
            decide=self.decided.append,
        )

    def _proxy(self, name: str) -> DeviceProxy:
        return DeviceProxy(cast(Channel, FakeChannel(name, self.log)), 0, name, frozenset())

    def exit(
        self,
        direction: int,
        port: int,
        data: bytes = b"",
        *,
        coalesced: str = "",
        count: int = 1,
        size: int = 1,
    ) -> None:
        """The next exit; before it the guest has made writes that did not: "index" or "post" each."""

        def play() -> int:
            for word in coalesced.split():
                self.coalesce(word)
            time.sleep(0)  # in KVM_RUN other threads run
            struct.pack_into("<I", self.vcpu.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_IO)
            struct.pack_into("<BBHIQ", self.vcpu.page, 32, direction, size, port, count, DATA)
            self.vcpu.page[DATA : DATA + len(data)] = data
            return 0

        self.vcpu.script.append(play)

    def coalesce(self, what: str) -> None:
        """What the kernel does with a write of 0x0c to the index, or of 0x33 to POST."""
        port, value = {"index": (RTC, 0x0C), "post": (POST, 0x33)}[what]
        kernel_writes(self.vcpu.page, port, bytes([value]))

    def play(self) -> list[tuple[object, ...]]:
        """Run the script and leave; gives what came before the leaving, at which the ring is emptied."""
        before: list[tuple[object, ...]] = []

        def leave() -> int:
            before.extend(self.log)
            self.control.leave()
            return -4

        self.vcpu.script.append(leave)
        assert self.loop.run() is None
        return before


INDEX = ("rtc", "write", 0, 0x0C)
CODE = ("post", "write", 0, 0x33)


@pytest.fixture
def rig(half: Half) -> Rig:
    return Rig(half)


@pytest.mark.parametrize("rounds", [1, 3])
def test_write_that_exits_comes_behind_those_that_did_not(rig: Rig, rounds: int) -> None:
    for _ in range(rounds):
        rig.exit(OUT, COM1, b"x", coalesced="post index")
    assert rig.play() == [CODE, INDEX, ("uart", "write", 0, ord("x"))] * rounds


def test_write_that_exits_with_an_empty_ring_asks_nobody_else(rig: Rig) -> None:
    for _ in range(3):
        rig.exit(OUT, COM1, b"x")
    assert rig.play() == [("uart", "write", 0, ord("x"))] * 3


def test_read_of_a_process_that_has_no_such_port_leaves_the_ring_alone(rig: Rig) -> None:
    rig.exit(IN, COM1 + 5)  # the first goes by the bus, and everything is drained before it
    rig.exit(IN, COM1 + 5, coalesced="post index")
    rig.exit(IN, COM1 + 5)
    assert rig.play() == [("uart", "read", 5, 0)] * 3
    # In the end all of it arrives.
    assert rig.log[3:] == [CODE, INDEX]


def test_first_exit_of_each_kind_is_behind_the_ring(rig: Rig) -> None:
    rig.exit(IN, COM1 + 5, coalesced="post")
    rig.exit(IN, RTC + 1, coalesced="index")
    rig.exit(IN, 0x1234, coalesced="index")  # nobody's port
    rig.exit(OUT, COM1, b"abc", coalesced="post", count=3)
    text = ("uart", "write string", 0, b"abc")
    assert rig.play() == [CODE, ("uart", "read", 5, 0), INDEX, ("rtc", "read", 1, 0), INDEX, CODE, text]


def test_wide_read_carries_no_index_and_comes_behind_it(rig: Rig) -> None:
    for _ in range(2):
        rig.exit(IN, RTC, coalesced="index", size=2)
    read = ("rtc", "wide read", 0, 0)
    assert rig.play() == [INDEX, read, INDEX, read]
    assert rig.rtc.reads == 4  # of bytes


def test_read_of_the_rtc_carries_the_index_that_is_alone_in_the_ring(rig: Rig) -> None:
    rig.exit(IN, RTC + 1)
    for _ in range(2):
        rig.exit(IN, RTC + 1, coalesced="index")
    rig.exit(IN, RTC + 1)
    carried = ("rtc", "indexed read", 1, 0 << 32 | 0x0C)
    assert rig.play() == [("rtc", "read", 1, 0), carried, carried, ("rtc", "read", 1, 0)]
    assert rig.vcpu.page[DATA] == 0x5A
    assert (rig.rtc.reads, rig.rtc.writes) == (4, 2)


@pytest.mark.parametrize(
    ("coalesced", "expected"),
    [("index index", ("rtc", "write run", 0, b"\x0c\x0c")), ("index post", None), ("post index", None)],
)
def test_read_of_the_rtc_with_more_in_the_ring_drains_it(
    rig: Rig, coalesced: str, expected: tuple[object, ...] | None
) -> None:
    rig.exit(IN, RTC + 1)
    rig.exit(IN, RTC + 1, coalesced=coalesced)
    read = ("rtc", "read", 1, 0)
    in_order = [{"index": INDEX, "post": CODE}[word] for word in coalesced.split()]
    assert rig.play() == [read, *([expected] if expected else in_order), read]


def test_read_of_the_rtc_with_another_devices_write_in_the_ring_drains_it(rig: Rig) -> None:
    rig.exit(IN, RTC + 1)
    rig.exit(IN, RTC + 1, coalesced="post")
    assert rig.play() == [("rtc", "read", 1, 0), CODE, ("rtc", "read", 1, 0)]


def test_write_of_the_rtcs_data_comes_behind_its_index(rig: Rig) -> None:
    for _ in range(2):
        rig.exit(OUT, RTC + 1, b"\x42", coalesced="index")
    assert rig.play() == [INDEX, ("rtc", "write", 1, 0x42)] * 2


def test_memory_access_is_behind_the_ring_as_a_port_access_is(rig: Rig) -> None:
    def memory(data: bytes = b"") -> None:
        def play() -> int:
            rig.coalesce("index")
            struct.pack_into("<I", rig.vcpu.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_MMIO)
            struct.pack_into("<Q8sIB", rig.vcpu.page, 32, 0xD000_0003, data, 1, bool(data))
            return 0

        rig.vcpu.script.append(play)

    for _ in range(3):
        memory(b"w")
    write = ("uart", "write", 3, ord("w"))
    assert rig.play() == [INDEX, write] * 3
    rig.log.clear()
    for _ in range(3):
        memory()
    read = ("uart", "read", 3, 0)
    assert rig.play() == [INDEX, read, read, read]  # the first goes by the bus


def test_ring_that_went_around_is_drained_in_order(rig: Rig) -> None:
    struct.pack_into("<II", rig.vcpu.page, RING, ENTRIES - 1, ENTRIES - 1)
    rig.exit(OUT, COM1, b"x")
    rig.exit(OUT, COM1, b"y", coalesced="post index")
    assert rig.play() == [("uart", "write", 0, ord("x")), CODE, INDEX, ("uart", "write", 0, ord("y"))]


def test_outcome_is_decided_before_the_last_drain(rig: Rig) -> None:
    # That may wait for another vCPU, which ends its wait for room when the outcome is decided.
    def crash() -> int:
        struct.pack_into("<I", rig.vcpu.page, uapi.RUN_EXIT_REASON, uapi.KVM_EXIT_SHUTDOWN)
        return 0

    rig.vcpu.script.append(crash)
    held: list[int] = []
    rig.room.wait = lambda: held.append(len(rig.decided))
    rig.loop.run()
    (outcome,) = rig.decided
    assert outcome.status == GUEST_CRASHED
    assert outcome is rig.loop.outcome
    assert held == [0, 1]  # before the crash is looked at, and after the loop


@pytest.mark.parametrize("is_started", [True, False])
@pytest.mark.parametrize("coalesced", ["post", "index post"])
def test_kicked_vcpu_gives_what_waits_for_the_start_of_a_process(
    rig: Rig, coalesced: str, is_started: bool
) -> None:
    cast(FakeChannel, rig.post.channel).is_started = is_started

    def kick() -> int:
        for word in coalesced.split():
            rig.coalesce(word)
        assert rig.ring.waits_for_start is not is_started
        return -errno.EINTR

    rig.vcpu.script.append(kick)
    in_order = [{"index": INDEX, "post": CODE}[word] for word in coalesced.split()]
    assert rig.play() == ([] if is_started else in_order)
    assert rig.log == in_order


def test_no_exit_overtakes_what_the_main_thread_is_flushing(rig: Rig) -> None:
    """The main thread flushes all the time, and both threads are switched as often as Python can."""
    flushed, ended = threading.Event(), threading.Event()

    def wait_for_the_main_thread() -> int:
        rig.coalesce("post")
        assert flushed.wait(30)
        return -errno.EINTR

    rig.vcpu.script.append(wait_for_the_main_thread)
    expected: list[tuple[str, int]] = [("post", 0x33)]
    for turn in range(300):
        rig.exit(OUT, COM1, bytes([turn & 0xFF]), coalesced="post")
        expected += [("post", 0x33), ("uart", turn & 0xFF)]
        rig.exit(IN, RTC + 1, coalesced="post index" if turn % 3 else "index")
        expected += [("post", 0x33)] if turn % 3 else []
        expected += [("rtc", 0x0C), ("rtc", -1)]

    def flush() -> None:
        while not ended.is_set():
            if rig.ring.flush():
                flushed.set()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    flusher = threading.Thread(target=flush)
    flusher.start()
    try:
        rig.play()
    finally:
        ended.set()
        flusher.join(30)
        sys.setswitchinterval(interval)
    seen: list[tuple[str, int]] = []
    for name, kind, _, value in rig.log:
        if kind == "indexed read":
            assert isinstance(value, int)
            seen += [("rtc", value & 0xFF), ("rtc", -1)]
        elif kind == "read":
            seen.append((str(name), -1))
        else:
            values = value if isinstance(value, bytes) else [value]
            seen += [(str(name), one) for one in values if isinstance(one, int)]
    assert seen == expected
