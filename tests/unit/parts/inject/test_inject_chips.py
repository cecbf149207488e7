"""Faults of UART and RTC, against the real models."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmbox.base import layout
from kvmbox.devices.uart.registers import (
    FCR,
    IER,
    LCR,
    LCR_DLAB,
    LSR,
    LSR_BI,
    LSR_DR,
    LSR_FE,
    LSR_OE,
    LSR_PE,
    LSR_TRANSMITTER,
    RBR,
)
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.rtc_faults import FaultyRtc
from kvmbox.parts.inject.spec import parse
from kvmbox.parts.inject.uart_faults import FaultyUart
from kvmbox.remote.bus.routing import BusDevice
from tests.support.pc import Pc

NS = 1_000_000_000


def faults_of(text: str, now: Callable[[], int]) -> DeviceFaults:
    spec = parse(text)
    faults = DeviceFaults(spec.device, now)
    for wanted in spec.wanted:
        faults.add(spec, wanted)
    return faults


def device_at(pc: Pc, port: int) -> BusDevice:
    mapping = pc.ports.find(port)
    assert mapping is not None
    return mapping.device


class Uart:
    """COM1 with faults, and a guest that reads what comes in."""

    def __init__(self, text: str) -> None:
        self.pc = Pc()
        self.faults = faults_of(text, lambda: 0)
        self.device = FaultyUart(device_at(self.pc, layout.COM_PORTS["COM1"]), self.faults)
        self.device.write(LCR, 1, 3)
        self.device.write(IER, 1, 1)

    def receive(self, data: bytes) -> None:
        for byte in data:
            assert self.pc.models["COM1"].receive(0, bytes([byte])) == 1

    def polled(self) -> list[tuple[int, int | None]]:
        """What a driver that polls gets: the errors of each look at LSR, and the byte if there was one."""
        found: list[tuple[int, int | None]] = []
        while (status := self.device.read(LSR, 1)) & (LSR_DR | LSR_OE):
            errors = status & (LSR_OE | LSR_PE | LSR_FE | LSR_BI)
            found.append((errors, self.device.read(RBR, 1) if status & LSR_DR else None))
        return found

    def each(self, data: bytes) -> list[tuple[int, int | None]]:
        """The same, byte by byte: the FIFO of the model is off."""
        found = []
        for byte in data:
            self.receive(bytes([byte]))
            found += self.polled()
        return found

    @property
    def counts(self) -> list[tuple[int, int]]:
        return [(count.events, count.injected) for count in self.faults.counts]


@pytest.mark.parametrize(
    ("fault", "bit", "read"), [("parity", LSR_PE, 0x41), ("framing", LSR_FE, 0x41), ("break", LSR_BI, 0)]
)
def test_error_of_a_received_byte_shows_once(fault: str, bit: int, read: int) -> None:
    uart = Uart(f"COM1:{fault}=1")
    uart.receive(b"A")
    assert uart.device.read(LSR, 1) & bit
    assert not uart.device.read(LSR, 1) & bit  # reading LSR clears the errors (8.4)
    assert uart.device.read(RBR, 1) == read
    assert not uart.device.read(LSR, 1) & (bit | LSR_DR)
    assert uart.counts == [(1, 1)]
    assert uart.each(b"B") == [(bit, 0x42 if read else 0)]


def test_overrun_loses_the_byte_and_shows_oe_once() -> None:
    uart = Uart("COM1:overrun=1")
    assert uart.each(b"AB") == [(LSR_OE, None), (LSR_OE, None)]
    assert not uart.device.read(LSR, 1) & LSR_OE
    assert uart.counts == [(2, 2)]


def test_each_byte_in_a_fifo_may_be_hit() -> None:
    uart = Uart("COM1:overrun=1")
    uart.device.write(FCR, 1, 1)
    uart.receive(b"ABC")
    assert [uart.device.read(LSR, 1) & (LSR_OE | LSR_DR) for _ in range(4)] == [
        LSR_OE | LSR_DR,
        LSR_OE | LSR_DR,
        LSR_OE,
        0,
    ]
    assert uart.counts == [(3, 3)]


def test_some_bytes_are_hit_and_the_same_ones_again() -> None:
    text = bytes(range(64, 128))
    found = Uart("COM1:overrun=0.3,seed=3").each(text)
    assert found == Uart("COM1:overrun=0.3,seed=3").each(text)
    assert found != Uart("COM1:overrun=0.3,seed=4").each(text)
    assert [byte for _, byte in found if byte is not None] == [
        byte for byte, (errors, _) in zip(text, found, strict=True) if not errors
    ]
    assert 5 < sum(byte is None for _, byte in found) < 40


def test_nothing_is_lost_while_the_data_cannot_be_read() -> None:
    uart = Uart("COM1:overrun=1")
    uart.receive(b"A")
    uart.device.write(LCR, 1, 3 | LCR_DLAB)
    assert not uart.device.read(LSR, 1) & LSR_OE
    uart.device.write(LCR, 1, 3)
    assert uart.device.read(RBR, 1) == 0x41
    assert uart.counts == [(0, 0)]


def test_break_in_front_of_a_divisor_leaves_that_alone() -> None:
    uart = Uart("COM1:break=1")
    uart.receive(b"A")
    uart.device.read(LSR, 1)
    uart.device.write(LCR, 1, 3 | LCR_DLAB)
    uart.device.write(RBR, 1, 12)
    assert uart.device.read(RBR, 1) == 12


def test_transmitter_stays_busy_and_sends_all_the_same() -> None:
    uart = Uart("COM1:busy=3")
    uart.device.write(RBR, 1, 0x41)
    assert [uart.device.read(LSR, 1) & LSR_TRANSMITTER for _ in range(4)] == [0, 0, 0, LSR_TRANSMITTER]
    assert uart.counts == [(4, 3)]


class Rtc:
    """The RTC with faults."""

    def __init__(self, text: str) -> None:
        self.pc = Pc()
        self.faults = faults_of(text, lambda: self.pc.now)
        self.device = FaultyRtc(device_at(self.pc, layout.RTC_INDEX_PORT), self.faults)

    def get(self, register: int) -> int:
        self.device.write(0, 1, register)
        return self.device.read(1, 1)

    def set(self, register: int, value: int) -> None:
        self.device.write(0, 1, register)
        self.device.write(1, 1, value)

    def time(self) -> tuple[int, ...]:
        """Century, year, month, day, hours, minutes, seconds, as the registers have them."""
        return tuple(self.get(register) for register in (0x32, 9, 8, 7, 4, 2, 0))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        ("+3600", (0x19, 0x70, 1, 1, 1, 0, 0)),
        ("-1", (0x19, 0x69, 0x12, 0x31, 0x23, 0x59, 0x59)),
        ("+86400", (0x19, 0x70, 1, 2, 0, 0, 0)),
        ("+1709164800", (0x20, 0x24, 2, 0x29, 0, 0, 0)),
    ],
)
def test_clock_jumps_once(seconds: str, shown: tuple[int, ...]) -> None:
    rtc = Rtc(f"RTC:jump={seconds}")
    assert rtc.time() == shown
    assert rtc.time() == shown
    assert [(count.events, count.injected) for count in rtc.faults.counts] == [(1, 1)]


def test_clock_jumps_between_two_accesses_and_keeps_the_index() -> None:
    rtc = Rtc("RTC:jump=+5,after=1")
    rtc.faults.access()
    assert rtc.get(0) == 0
    rtc.device.write(0, 1, 0)
    rtc.faults.access()
    assert rtc.device.read(1, 1) == 5


def test_jump_keeps_the_format_and_the_enabled_interrupts() -> None:
    rtc = Rtc("RTC:jump=+46800,at=1s")
    rtc.set(0x0B, 0x30 | 0x04)  # binary, 12 hours, UIE and AIE
    rtc.pc.now = NS
    # 13 hours and one second later: 1 p.m.
    assert rtc.get(4) == 0x81
    assert rtc.get(0x0B) == 0x34


def test_day_of_the_week_follows() -> None:
    rtc = Rtc("RTC:jump=+259200")
    before = Rtc("RTC:jump=+259200,at=1s").get(6)
    assert rtc.get(6) == (before - 1 + 3) % 7 + 1
