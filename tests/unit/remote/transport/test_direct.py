"""The channel without a process: what it makes of models is what every other channel does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kvmbox.base.errors import DeviceProcessError, ProtocolError
from kvmbox.contract.device_spec import DeviceSpec, Resource
from kvmbox.contract.model import Effect, HostOutput, IrqLine, Reset, Stop, Transfer
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.published.guest_memory import TransferAccess
from kvmbox.remote.transport.direct import DirectLink, direct_channels
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import INDEXED_READ, NO_DEADLINE, READ, WRITE, Request, request_word
from tests.support.fake_model import FakeModel
from tests.support.halves import Half
from tests.support.log import Log

NOW = 5_000


def link_to(models: list[FakeModel]) -> DirectLink:
    """A link whose HELLO gets these models, in order."""
    return DirectLink(lambda: DeviceServer(build=lambda _name, _parameters: models.pop(0)))


class Rig:
    """Two fake models behind a channel; the first may raise its line and print, the second stop and reset."""

    def __init__(
        self,
        half: Half,
        *,
        irq: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> None:
        """`irq` hears of the line. `options` are those of the channel."""
        self.half = half
        self.log = Log()
        disk = TransferAccess(Resource("disk", 1 << 20), lambda *_order: True)
        self.one, self.two = FakeModel("one"), FakeModel("two")
        waiting = [self.one, self.two]
        self.channel = half.channel(
            "fakes",
            link_to(waiting),
            [
                Grants(
                    "one",
                    irq_lines=[irq or self.log.note("irq")],
                    output=self.log.note("output"),
                    resources=[disk],
                ),
                Grants("two", reset=self.log.note("reset"), stop=self.log.note("stop")),
            ],
            now=lambda: NOW,
            deadline_changed=self.log.note("deadline"),
            **options,
        )
        devices = [DeviceSpec(name, "fakes", "fake") for name in ("one", "two")]
        assert greet(self.channel, devices) == protocol.VERSION

    def access(self, kind: int, device: int = 0, size: int = 1, *, offset: int = 0, value: int = 0) -> int:
        limit = (1 << 8 * size) - 1 if kind != WRITE else 0
        word = request_word(kind, device, size)
        return self.channel.access(word, offset, value, limit)


@pytest.fixture
def rig(half: Half) -> Iterator[Rig]:
    rig = Rig(half)
    yield rig
    rig.channel.forget_failure()
    rig.channel.request(protocol.ADVANCE)  # the lock is free, or this does not come back


def test_accesses_reach_the_right_model_with_guest_time(rig: Rig) -> None:
    rig.two.value = 0x1234
    assert rig.access(READ, 1, 2, offset=6) == 0x1234
    assert rig.access(WRITE, 0, 4, offset=3, value=0xDEADBEEF) == 0
    assert rig.access(INDEXED_READ, 1, 2, offset=1, value=3 << 32 | 0x8C) == 0x1234
    assert rig.two.calls == [("read", NOW, 6, 2), ("write", NOW, 3, 1, 0x8C), ("read", NOW, 1, 2)]
    assert rig.one.calls == [("write", NOW, 3, 4, 0xDEADBEEF)]
    assert rig.log == []


def test_effects_are_applied_in_order_then_output_is_waited_for(half: Half) -> None:
    def wait_for_output() -> None:
        fakes.log.append(("wait", fakes.channel.request(protocol.ADVANCE)))  # the lock is free

    fakes = Rig(half, wait_for_output=wait_for_output)
    fakes.one.effects = [IrqLine(0, 1, 2), HostOutput(b"x"), IrqLine(0, 0)]
    fakes.access(WRITE)
    assert [entry for entry in fakes.log if entry[0] != "deadline"] == [
        ("irq", 1, 2),
        ("output", b"x"),
        ("irq", 0, 0),
        ("wait", (0, b"")),
    ]
    fakes.log.clear()
    fakes.access(WRITE)  # nothing happened: there is nothing to wait for
    assert fakes.log == []


@pytest.mark.parametrize(("effect", "noted"), [(Reset(), ("reset",)), (Stop(), ("stop", 2, 1, 0x55))])
def test_stop_and_reset_count_in_a_write_to_that_device_only(
    rig: Rig, effect: Effect, noted: tuple[object, ...]
) -> None:
    rig.two.effects = [effect]
    rig.access(WRITE, 1, offset=2, value=0x55)
    assert rig.log == [noted]
    for kind in (READ, INDEXED_READ):
        rig.log.clear()
        rig.channel.forget_failure()
        rig.two.effects = [effect]
        with pytest.raises(ProtocolError, match="not granted"):
            rig.access(kind, 1)
        assert rig.log == []


def test_effect_that_was_not_granted_breaks_the_protocol_before_any_is_applied(rig: Rig) -> None:
    rig.one.effects = [IrqLine(0, 1), Reset()]
    with pytest.raises(ProtocolError, match="effect Reset of one: not granted"):
        rig.access(WRITE)
    assert rig.log == []


def test_deadline_is_the_earliest_and_told_when_it_changes(rig: Rig) -> None:
    rig.one.deadline = 9_000
    rig.access(READ)
    rig.two.deadline = 8_000
    rig.access(WRITE, 1)
    rig.access(READ, 1)
    rig.two.deadline = None
    rig.access(READ, 1)
    rig.one.deadline = None
    rig.access(READ)
    assert rig.log == [("deadline", at, NOW) for at in (9_000, 8_000, 9_000, NO_DEADLINE)]
    assert rig.channel.deadline == NO_DEADLINE


def test_deadline_after_a_request_is_known_to_the_next_access(rig: Rig) -> None:
    rig.one.deadline = 9_000
    rig.channel.request(protocol.ADVANCE)
    assert rig.one.calls == [("advance", NOW)]
    assert rig.channel.deadline == 9_000
    rig.log.clear()
    rig.access(READ, 1)
    assert rig.log == []  # no change


@pytest.mark.parametrize("kind", [READ, INDEXED_READ])
def test_value_beyond_the_size_of_the_access_breaks_the_protocol(rig: Rig, kind: int) -> None:
    rig.one.value = 0x100
    with pytest.raises(ProtocolError, match="value 0x100 where at most 0xff can be"):
        rig.access(kind)


def test_model_that_raises_is_named_and_the_channel_of_no_use_any_more(rig: Rig) -> None:
    class Broken(FakeModel):
        def read(self, now: int, offset: int, size: int) -> int:
            raise KeyError("register\n")

    model = Broken()
    rig.channel = rig.half.channel("fakes", link_to([model]), [Grants("one")], now=lambda: NOW)
    greet(rig.channel, [DeviceSpec("one", "fakes", "fake")])
    with pytest.raises(DeviceProcessError, match=r"device process 'fakes' failed: KeyError: ") as caught:
        rig.access(READ)
    assert "\n" not in str(caught.value)
    with pytest.raises(DeviceProcessError, match="KeyError"):
        rig.access(WRITE)
    with pytest.raises(DeviceProcessError, match="KeyError"):
        rig.channel.request(protocol.ADVANCE)
    assert model.calls == []


class Signalled(BaseException):
    """What the handler of a signal raises."""


@pytest.mark.parametrize(
    "ask",
    [
        lambda rig: rig.access(READ),
        lambda rig: rig.access(WRITE),
        lambda rig: rig.channel.request(protocol.ADVANCE),
        lambda rig: rig.channel.request(protocol.RECEIVE, payload=b"x", limit=1),
    ],
    ids=["read", "write", "advance", "receive"],
)
def test_what_a_signal_raises_within_a_model_is_raised_and_no_broken_protocol(
    half: Half, ask: Callable[[Rig], object]
) -> None:
    class Interrupted(FakeModel):
        def read(self, now: int, offset: int, size: int) -> int:
            raise Signalled

        def write(self, now: int, offset: int, size: int, value: int) -> None:
            raise Signalled

        def advance(self, now: int) -> None:
            raise Signalled

        def receive(self, now: int, data: bytes) -> int:
            raise Signalled

    rig = Rig(half)
    rig.channel = half.channel("fakes", link_to([Interrupted()]), [Grants("one")], now=lambda: NOW)
    greet(rig.channel, [DeviceSpec("one", "fakes", "fake")])
    for _ in range(2):
        with pytest.raises(Signalled):
            ask(rig)


def test_request_that_a_model_fails_is_its_error_frame(rig: Rig) -> None:
    with pytest.raises(DeviceProcessError, match="failed: IndexError"):
        rig.channel.request(protocol.RECEIVE, device=7, payload=b"x", limit=1)


def test_access_to_a_device_that_is_not_there_is_a_failure(rig: Rig) -> None:
    with pytest.raises(DeviceProcessError, match="failed: FrameError"):
        rig.access(READ, 2)


def test_recorder_sees_frames_as_of_a_process(half: Half) -> None:
    seen: list[tuple[bytes, bytes]] = []
    rig = Rig(half, record=lambda sent, frame: seen.append((sent, frame)))
    seen.clear()  # HELLO
    rig.one.value, rig.one.deadline = 0x41, 7_000
    rig.one.effects = [HostOutput(b"x")]
    assert rig.access(READ, offset=5) == 0x41
    assert rig.access(READ, offset=5) == 0x41
    first, second = Request(READ, 0, 1, 2, NOW, 0, 5), Request(READ, 0, 1, 3, NOW, 0, 5)
    assert seen == [
        (first.encode(), encode_reply(first, 7_000, 0x41, [(0, HostOutput(b"x"))])),
        (second.encode(), encode_reply(second, 7_000, 0x41, [])),
    ]
    assert rig.log == [("output", b"x"), ("deadline", 7_000, NOW)]


def test_run_of_writes_is_one_request(rig: Rig) -> None:
    rig.channel.transact(protocol.WRITE_RUN, 1, 3, b"ab")
    assert rig.two.calls == [("write", NOW, 3, 1, byte) for byte in b"ab"]


def test_threads_take_turns(half: Half) -> None:
    inside = threading.Event()
    go_on = threading.Event()
    order: list[str] = []

    def later(*_arguments: object) -> None:
        inside.set()
        assert go_on.wait(30)
        order.append("vcpu")

    rig = Rig(half, irq=later)
    rig.one.effects = [IrqLine(0, 1)]
    vcpu = threading.Thread(target=lambda: rig.access(WRITE), daemon=True)
    vcpu.start()
    assert inside.wait(30)

    def advance() -> None:
        rig.channel.request(protocol.ADVANCE)
        order.append("main")

    main = threading.Thread(target=advance, daemon=True)
    main.start()
    go_on.set()
    vcpu.join(30)
    main.join(30)
    assert order == ["vcpu", "main"]


def test_channels_of_a_board_are_one_for_each_type_in_index_order() -> None:
    board = pc_board(BoardOptions(("COM1", "COM2"), rtc_base=0, memory_size=1 << 20))
    channels = direct_channels(
        board,
        {device.name: Grants(device.name) for device in board},
        now=lambda: 0,
        deadline_changed=lambda *_: None,
    )
    assert {channel.device_type: [d.name for d in devices] for channel, devices in channels} == {
        "uart": ["COM1", "COM2"],
        "pit": ["PIT"],
        "rtc": ["RTC"],
        "i8042": ["i8042"],
        "pm": ["PM", "power-off"],
        "hpet": ["HPET"],
        "debug": [
            *("debugcon", "POST", "debug-exit", "debug-exit-501", "shutdown", "pvpanic", "reset-control"),
        ],
        "fwcfg": ["fw_cfg"],
        "vga": ["VGA", "VBE"],
    }


def test_transfers_that_are_told_of_later_are_no_follow_ups_of_later_accesses(rig: Rig) -> None:
    for number in range(3 * MAX_FOLLOW_UPS):
        rig.one.effects.append(Transfer(number, 0, 0, ((0, 512),), True))
        rig.access(WRITE)
    assert rig.channel.failure is None
