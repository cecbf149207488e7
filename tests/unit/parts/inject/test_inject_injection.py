"""Which device of a board gets which faults, and what is put between it and the guest."""

from __future__ import annotations

from typing import Any

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.contract.model import IrqLine, LateWrites
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.parts.inject.device import FaultyDevice
from kvmbox.parts.inject.device_faults import Count
from kvmbox.parts.inject.injection import Injection, report
from kvmbox.parts.inject.spec import parse
from kvmbox.remote.channel.grants import bind
from kvmbox.wire import protocol
from kvmbox.wire.protocol import NO_DEADLINE, Request
from tests.support.noting_host import NotingHost

BOARD = pc_board(BoardOptions(("COM1", "COM2", "MMIO"), 0, 1 << 20))
WRITE = Request(protocol.WRITE, 0, 1).encode()
ADVANCE = Request(protocol.ADVANCE, 0).encode()


def named(name: str, board: list[DeviceSpec] = BOARD) -> DeviceSpec:
    (device,) = [device for device in board if device.name == name]
    return device


class Proxy:
    """A device that is never reached."""

    natural_sizes = frozenset({1})

    def read(self, _offset: int, _size: int) -> int:
        return 0

    def write(self, _offset: int, _size: int, _value: int) -> None:
        pass


class Rig:
    """Faults on a board whose devices do what a test says."""

    def __init__(self, *texts: str) -> None:
        self.now = 0
        self.told: list[tuple[str, int]] = []
        self.injection = Injection([parse(text) for text in texts], BOARD)
        self.board = self.injection.board_of(BOARD)
        self.deadline = self.injection.attach(
            lambda: self.now,
            [(device.device_type, device) for device in self.board],
            lambda process, deadline, _now: self.told.append((process, deadline)),
        )
        self.host = NotingHost()

    def grants(self, name: str) -> Any:
        device = named(name, self.board)
        return bind(device, self.injection.host_of(device, self.host))

    def report(self, name: str, grants: Any, level: int) -> None:
        """The device reports the level of its first pin."""
        device = named(name, self.board)
        application = grants.check(self.board.index(device), IrqLine(0, level, 0), ADVANCE)
        call, arguments, _ = application
        call(*arguments)


def test_devices_without_faults_are_as_they_were() -> None:
    rig = Rig("COM2:drop-irq=1")
    proxy = Proxy()
    for device, other in zip(BOARD, rig.board, strict=True):
        if device.name != "COM2":
            assert other is device
            assert rig.injection.host_of(device, rig.host) is rig.host
            assert rig.injection.device_of(device, proxy) is proxy


def test_device_with_faults_announces_nothing_and_has_no_late_writes() -> None:
    rig = Rig("PIT:drop-irq=1", "uart:busy=1")
    assert named("PIT").parameters["announce"]
    assert not named("PIT", rig.board).parameters["announce"]
    assert not named("PIT", rig.board).on_demand  # what stands in for the process announces
    assert {**named("PIT", rig.board).parameters, "announce": 1} == named("PIT").parameters
    assert named("COM1", rig.board).coalesced == ()
    grants = rig.grants("COM1")
    call, arguments, _ = grants.check(0, LateWrites(0, 1), WRITE)
    call(*arguments)
    assert rig.host.log == []
    assert isinstance(rig.injection.device_of(named("COM1"), Proxy()), FaultyDevice)


def test_fault_that_a_device_gets_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="COM1 has the fault 'busy' twice") as raised:
        Injection([parse("uart:busy=1,drop-irq=1"), parse("COM1:busy=2")], BOARD)
    assert raised.value.hint == "once in 'COM1:busy=2'"
    Injection([parse("uart:busy=1"), parse("COM1:drop-irq=1")], BOARD)


def test_interrupts_of_a_device_with_faults_are_dropped_and_counted() -> None:
    rig = Rig("COM1:drop-irq=1", "RTC:drop-irq=0")
    com1, rtc = rig.grants("COM1"), rig.grants("RTC")
    for _ in range(3):
        rig.report("COM1", com1, 1)
        rig.report("COM1", com1, 0)
    rig.report("RTC", rtc, 1)
    assert [entry for entry in rig.host.log if entry[0] == "irq"] == [("irq", 8, 1, 0)]
    assert rig.injection.counts == [Count("COM1", "drop-irq", 3, 3), Count("RTC", "drop-irq", 1, 0)]


def test_process_is_told_the_time_when_a_late_interrupt_is_due() -> None:
    rig = Rig("PIT:delay-irq=1@2ms")
    pit = rig.grants("PIT")
    rig.deadline("pit", 10_000_000, 0)
    rig.deadline("rtc", 5_000_000, 0)
    rig.now = 1_000_000
    rig.report("PIT", pit, 1)
    assert rig.told == [("pit", 10_000_000), ("rtc", 5_000_000), ("pit", 3_000_000)]
    # A deadline of the model before that counts, and one behind it does not.
    rig.deadline("pit", 2_000_000, 0)
    rig.deadline("pit", NO_DEADLINE, 0)
    assert rig.told[3:] == [("pit", 2_000_000), ("pit", 3_000_000)]
    # The channel knows the line as one that may rise before the model is told the time.
    (rise,) = pit.rises.values()
    rise.raise_ahead()
    assert ("irq", 0, 1, 0) in rig.host.log
    rig.deadline("pit", 10_000_000, 0)
    assert rig.told[-1] == ("pit", 10_000_000)


def test_reset_ends_delays_of_all_devices() -> None:
    rig = Rig("PIT:delay-irq=1@2ms")
    pit = rig.grants("PIT")
    rig.report("PIT", pit, 1)
    rig.injection.reset()
    (rise,) = pit.rises.values()
    rise.raise_ahead()
    assert rig.host.log == []


def test_report_has_a_line_for_what_had_a_chance() -> None:
    counts = [Count("COM1", "drop-irq", 271, 3), Count("COM1", "busy", 0, 0), Count("RTC", "jump", 1, 1)]
    assert report(counts) == [
        "COM1: 3 of 271 interrupts dropped",
        "RTC: 1 of 1 jumps of the clock",
    ]
    assert report(counts[1:2]) == ["no fault had a chance"]
