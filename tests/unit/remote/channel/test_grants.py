"""Grants: what the board allows a device, bound to a host, and the check of each effect against it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.contract import device_spec
from kvmbox.contract.bulk_data import Aperture, Flush, FrameBuffer, Queue, Window
from kvmbox.contract.device_spec import DeviceSpec, Grant
from kvmbox.contract.model import (
    ContentRead,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    LateWrites,
    MemoryWrite,
    Reset,
    RisesAt,
    Stop,
    Suspend,
    TakeLine,
    Transfer,
)
from kvmbox.remote.channel.grants import Rise, bind
from kvmbox.wire import protocol
from kvmbox.wire.bulk_effect_table import TABLE as MEDIA
from kvmbox.wire.effect_kinds import BY_CLASS, EffectKind
from kvmbox.wire.effects import TABLE as PLAIN
from kvmbox.wire.protocol import Request
from tests.support.noting_host import NotingHost

TABLE = (*PLAIN, *MEDIA)

WRITE: Final = Request(protocol.WRITE, 1, 2, value=0x1234, offset=3).encode()
OTHERS: Final = {
    "a read": Request(protocol.READ, 1, 2).encode(),
    "a write to another device": Request(protocol.WRITE, 0, 2).encode(),
    "an indexed read": Request(protocol.INDEXED_READ, 1, 2).encode(),
    "a run of writes": Request(protocol.WRITE_RUN, 1, payload=b"x").encode(),
    "the time": Request(protocol.ADVANCE, 1).encode(),
    "a reset": Request(protocol.RESET, 1).encode(),
}


class Host(NotingHost):
    """It hears of announcements for every second source alone, as a host does for its own ones."""

    def rise_of(self, line: Callable[[int, int], None]) -> Rise | None:
        rise = super().rise_of(line)
        return rise if self.sources % 2 == 0 else None


CASES: Final[dict[str, tuple[Grant, Effect, tuple[object, ...]]]] = {
    "ReplacingIrq": (device_spec.ReplacingIrq(8), TakeLine(0, 1), ("take", 8, 1)),
    "Irq": (device_spec.Irq(9), IrqLine(0, 1, 2), ("irq", 9, 1, 2)),
    "Output": (device_spec.Output("COM2"), HostOutput(b"x"), ("output", "COM2", b"x")),
    "Input": (device_spec.Input("COM2"), InputRoom(7), ("room", "COM2", 7)),
    "Reset": (device_spec.Reset(), Reset(), ("reset",)),
    "StopValue": (device_spec.StopValue(), Stop(), ("stop", 0x1234)),
    "Memory": (device_spec.Memory(), MemoryWrite(1 << 40, b"nobody's", 9), ()),
    # The first resource: content may be asked for all that a resource may.
    "Content": (device_spec.Content((b"abc",)), ContentRead(9, 0, 1, 4), ()),
    "Resource": (
        device_spec.Resource("disk", 512),
        Transfer(9, 0, 7, [], 1),
        ("transfer", "X", "disk", 9, 7, [], True),
    ),
    "Medium": (
        device_spec.Medium("disk", 512, window=0),
        Window(9, 0, 0, 512, 1),
        ("read", "X", "disk", 0, 512),
    ),
    "BiosReport": (device_spec.BiosReport(), Stop(), ("stop of the BIOS", 3, 2, 0x1234)),
    "Aperture": (
        device_spec.Aperture(),
        Aperture(0, layout.VGA_MEMORY, 64),
        ("aperture", 1, Aperture(0, layout.VGA_MEMORY, 64)),
    ),
    "FrameBuffer": (device_spec.FrameBuffer(), FrameBuffer(3, 1, 9), ()),
    "LateWrites": (device_spec.LateWrites(3), LateWrites(3, 1), ("late", "X", 3, 1)),
    "StopClean": (device_spec.StopClean(), Stop(), ("stop", None)),
    "Suspend": (device_spec.Suspend(), Suspend(1), ("suspend", "X", 1)),
    "StopPanic": (device_spec.StopPanic(), Stop(), ("stop", None)),  # 0x1234 has bit 2 alone of the three
}
"""By the name of the grant: an effect that it allows, and what the host is asked for."""


def device(*grants: Grant) -> DeviceSpec:
    return DeviceSpec("X", "x", "x", grants=grants)


def test_every_grant_that_the_table_names_is_one_of_the_board_and_is_tried_here() -> None:
    named = {name for kind in TABLE for name in kind.grants}
    of_pci = {"Intx", "Vectors"}  # see test_pci.py
    assert named - {"Queues"} - of_pci == set(CASES)
    for name, (grant, effect, _) in CASES.items():
        assert type(grant) is getattr(device_spec, name)
        assert type(effect) in [kind.make for kind in TABLE if name in kind.grants]


@pytest.mark.parametrize("name", CASES)
def test_granted_effect_asks_the_host_for_what_the_grant_says(name: str) -> None:
    grant, effect, asked = CASES[name]
    host = Host()
    application = bind(device(grant), host).check(1, effect, WRITE)
    assert application is not None
    assert host.log == []  # found good, not done yet
    apply, arguments, _ = application
    apply(*arguments)
    assert host.log == ([asked] if asked else [])


@pytest.mark.parametrize("name", CASES)
def test_effect_is_allowed_by_its_own_grants_alone(name: str) -> None:
    _, effect, _ = CASES[name]
    allowed_by = BY_CLASS[type(effect)].grants
    others = [grant for other, (grant, _, _) in CASES.items() if other not in allowed_by]
    assert bind(device(*others), Host()).check(1, effect, WRITE) is None


@pytest.mark.parametrize("kind", TABLE, ids=lambda kind: kind.name)
@pytest.mark.parametrize("sent", OTHERS.values(), ids=OTHERS)
def test_effect_after_a_write_is_allowed_in_the_reply_to_no_other_request(
    kind: EffectKind, sent: bytes
) -> None:
    for grant, effect, _ in CASES.values():
        if kind.make is type(effect):
            allowed = bind(device(grant), Host()).check(1, effect, sent) is not None
            assert allowed is not kind.after_write


def test_few_effects_need_a_write() -> None:
    assert {kind.make for kind in TABLE if kind.after_write} == {FrameBuffer, Queue, Reset, Stop, Suspend}


def test_pins_are_the_irq_grants_in_their_order() -> None:
    host = Host()
    grants = bind(device(device_spec.Irq(1), device_spec.Output("COM1"), device_spec.Irq(12)), host)
    for pin in (1, 0):
        application = grants.check(0, IrqLine(pin, 1), WRITE)
        assert application is not None
        apply, arguments, _ = application
        apply(*arguments)
    assert host.log == [("irq", 12, 1, 0), ("irq", 1, 1, 0)]
    assert grants.check(0, IrqLine(2, 1), WRITE) is None


def test_announcement_is_for_a_granted_pin_and_is_heard_by_the_host_of_its_source() -> None:
    host = Host()
    grants = bind(device(device_spec.Irq(4), device_spec.Reset(), device_spec.ReplacingIrq(9)), host)
    for pin, asked in ((0, []), (1, [("rise", 2, 77)])):
        application = grants.check(1, RisesAt(pin, 77), WRITE)
        assert application is not None
        apply, arguments, _ = application
        apply(*arguments)
        assert host.log == asked
    assert grants.check(1, RisesAt(2, 77), WRITE) is None
    assert bind(device(device_spec.Reset()), host).check(1, RisesAt(0, 77), WRITE) is None


def test_line_is_taken_by_the_pin_that_may_and_by_no_other() -> None:
    host = Host()
    grants = bind(device(device_spec.Irq(1), device_spec.ReplacingIrq(0), device_spec.ReplacingIrq(8)), host)
    assert device(device_spec.Irq(1), device_spec.ReplacingIrq(0), device_spec.ReplacingIrq(8)).irqs == (
        1,
        0,
        8,
    )
    assert grants.check(0, TakeLine(0, 1), WRITE) is None  # the pin of an Irq drives its line, and no more
    assert grants.check(0, TakeLine(3, 1), WRITE) is None
    for effect in (TakeLine(2, 1), IrqLine(2, 1), TakeLine(2, 0)):
        application = grants.check(0, effect, WRITE)
        assert application is not None
        apply, arguments, _ = application
        apply(*arguments)
    assert host.log == [("take", 8, 1), ("irq", 8, 1, 0), ("take", 8, 0)]


@pytest.mark.parametrize(
    ("events", "asked"),
    [
        (0x01, [("panic", False)]),
        (0x07, [("panic", False)]),
        (0x02, [("panic", True)]),
        (0x06, [("panic", True)]),
        (0x04, [("stop", None)]),
        (0xF8, []),
        (0x00, []),
    ],
)
def test_pvpanic_does_what_the_guest_wrote_and_not_what_its_process_says(
    events: int, asked: list[tuple[object, ...]]
) -> None:
    host = Host()
    sent = Request(protocol.WRITE, 1, 1, value=events).encode()
    application = bind(device(device_spec.StopPanic()), host).check(1, Stop(), sent)
    assert application is not None
    apply, arguments, _ = application
    apply(*arguments)
    assert host.log == asked


OFF: Final = device_spec.StopClean((device_spec.WrittenByte(4, 0x20, 0x3C), device_spec.WrittenByte(0, 0x34)))


@pytest.mark.parametrize(
    ("offset", "size", "value", "stops"),
    [
        (4, 1, 0x20, True),
        (4, 1, 0xE3, True),  # the mask leaves the other bits out
        (4, 1, 0x24, False),
        (3, 2, 0x2000, True),
        (3, 2, 0x0020, False),  # that byte goes to 3
        (5, 1, 0x20, False),
        (0, 4, 0x34, True),  # the other byte
        (0, 4, 0x3400, False),
        (0, 8, 0x20_0000_0034, True),
    ],
)
def test_clean_stop_is_granted_after_the_writes_of_the_grant_alone(
    offset: int, size: int, value: int, stops: bool
) -> None:
    sent = protocol.Request(protocol.WRITE, 1, size, 7, 0, value, offset).encode()
    application = bind(device(OFF), Host()).check(1, Stop(), sent)
    assert (application is not None) == stops


DISK: Final = device_spec.Medium("disk", 4096, writable=True, window=0, max_bytes=1024)
CD: Final = device_spec.Medium("cd", 2048, window=0)


@pytest.mark.parametrize(
    ("effect", "allowed"),
    [
        (Window(1, 1, 0, 1024, 1), True),
        (Window(1, 1, 0, 1025, 1), False),
        (Window(1, 1, 0, 0, 0), True),
        (Window(1, 1, 1 << 63, 1024, 1), True),  # beyond the end: the guest's fault, and a status
        (Window(1, 1, 0, 1024, 0), True),
        (Window(1, 2, 0, 512, 0), False),  # a CD is not written
        (Window(1, 2, 0, 512, 1), True),
        (Window(1, 0, 0, 512, 1), False),  # no medium
        (Window(1, 3, 0, 512, 1), False),
        (Flush(1, 1), True),
        (Flush(1, 2), True),
        (Flush(1, 0), False),
        (Flush(1, 3), False),
        (Transfer(1, 1, 0, [(0, 512)], 1), False),
        (ContentRead(1, 1, 0, 4), False),
    ],
)
def test_window_is_within_a_medium_that_counts_among_the_resources(effect: Effect, allowed: bool) -> None:
    grants = bind(device(device_spec.Content((b"abc",)), DISK, CD), Host())
    assert (grants.check(1, effect, WRITE) is not None) is allowed


def test_medium_without_a_register_has_no_window() -> None:
    grants = bind(device(device_spec.Medium("disk", 4096)), Host())
    assert grants.media is not None
    assert grants.media.window is None
    assert grants.check(1, Window(1, 0, 0, 512, 1), WRITE) is None
    assert grants.check(1, Flush(1, 0), WRITE) is not None


def test_device_has_one_window() -> None:
    with pytest.raises(ValueError, match="device X has more than one window"):
        bind(device(DISK, device_spec.Medium("cd", 2048, window=4)), Host())
