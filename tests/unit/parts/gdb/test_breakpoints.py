"""Breakpoints in guest memory and in debug registers."""

from __future__ import annotations

import pytest

from kvmbox.parts.gdb.breakpoints import (
    ACCESS_WATCH,
    HARDWARE,
    MOST_PLANTED,
    READ_WATCH,
    SOFTWARE,
    WRITE_WATCH,
    Breakpoints,
    Point,
)
from kvmbox.parts.gdb.refused import RefusedError


class Ram:
    """64 KiB, of which the last page is ROM."""

    def __init__(self) -> None:
        self.bytes = bytearray(b"\x90" * 0x1_0000)

    def available(self, address: int, size: int) -> bytes:
        return bytes(self.bytes[address : address + size])

    def contains(self, address: int, size: int) -> bool:
        return address + size <= 0xF000

    def write(self, address: int, data: bytes) -> None:
        self.bytes[address : address + len(data)] = data


@pytest.fixture
def ram() -> Ram:
    return Ram()


@pytest.fixture
def points(ram: Ram) -> Breakpoints:
    return Breakpoints(ram)


def test_planted_byte_is_in_memory_only_while_cpus_run(ram: Ram, points: Breakpoints) -> None:
    points.add(Point(SOFTWARE, 0xFFFF_8000_0000_0100, 1), 0x100)
    assert ram.bytes[0x100] == 0x90
    points.plant()
    assert ram.bytes[0x100] == 0xCC
    assert points.is_planted(0x100)
    assert not points.is_planted(0x101)
    assert not points.is_planted(None)
    points.lift()
    assert ram.bytes[0x100] == 0x90


def test_one_that_is_stepped_over_is_not_planted(ram: Ram, points: Breakpoints) -> None:
    points.add(Point(SOFTWARE, 0x100, 1), 0x100)
    points.add(Point(SOFTWARE, 0x200, 1), 0x200)
    points.plant(but=0x100)
    assert (ram.bytes[0x100], ram.bytes[0x200]) == (0x90, 0xCC)


def test_two_names_of_one_byte_are_planted_once(ram: Ram, points: Breakpoints) -> None:
    points.add(Point(SOFTWARE, 0x100, 1), 0x100)
    points.add(Point(SOFTWARE, 0xFFFF_0100, 1), 0x100)
    points.plant()
    points.plant()
    points.lift()
    assert ram.bytes[0x100] == 0x90
    points.remove(Point(SOFTWARE, 0x100, 1))
    assert points.is_planted(0x100)
    points.remove(Point(SOFTWARE, 0xFFFF_0100, 1))
    assert not points.any_planted


def test_what_the_guest_has_written_over_a_planted_byte_stays(ram: Ram, points: Breakpoints) -> None:
    points.add(Point(SOFTWARE, 0x100, 1), 0x100)
    points.plant()
    ram.bytes[0x100] = 0x55
    points.lift()
    assert ram.bytes[0x100] == 0x55


def test_where_nothing_can_be_planted_a_debug_register_is_used(ram: Ram, points: Breakpoints) -> None:
    for address, physical in ((0x7C00, None), (0xF000, 0xF000)):
        points.add(Point(SOFTWARE, address, 1), physical)
    points.plant()
    assert bytes(ram.bytes) == b"\x90" * 0x1_0000
    assert points.debug_registers() == ((0x7C00, 0xF000, 0, 0), 0x400 | 0b1010)


def test_registers_say_what_ends_an_access(points: Breakpoints) -> None:
    points.add(Point(HARDWARE, 0x1000, 1), None)
    points.add(Point(WRITE_WATCH, 0x2000, 4), None)
    points.add(Point(ACCESS_WATCH, 0x3000, 8), None)
    addresses, dr7 = points.debug_registers()
    assert addresses == (0x1000, 0x2000, 0x3000, 0)
    assert dr7 == 0x0BD0_042A  # SDM volume 3, figure 18-1: G0 to G2, R/W and LEN
    assert points.debug_registers(but=0x1000)[1] == 0x0BD0_0428
    assert points.debug_registers(but=0x2000)[1] == dr7  # a watchpoint is no instruction
    assert points.hit_by(0b0100) == Point(ACCESS_WATCH, 0x3000, 8)
    assert points.hit_by(0b1000) is None


def test_what_cannot_be_set_is_refused(points: Breakpoints) -> None:
    for point in (Point(READ_WATCH, 0, 1), Point(WRITE_WATCH, 0, 3), Point(WRITE_WATCH, 2, 4)):
        with pytest.raises(RefusedError):
            points.add(point, None)
    for address in range(4):
        points.add(Point(HARDWARE, address, 1), None)
        points.add(Point(HARDWARE, address, 1), None)  # again is harmless
    with pytest.raises(RefusedError, match="the 4 debug registers are in use"):
        points.add(Point(HARDWARE, 4, 1), None)
    with pytest.raises(RefusedError, match="nothing can be planted at 0x5 now"):
        points.add(Point(SOFTWARE, 5, 1), None)
    points.remove(Point(HARDWARE, 2, 1))
    points.add(Point(HARDWARE, 4, 1), None)
    points.clear()
    assert not points.any_slots


def test_software_breakpoints_are_limited(points: Breakpoints) -> None:
    for address in range(MOST_PLANTED):
        points.add(Point(SOFTWARE, address, 1), address)
    with pytest.raises(RefusedError, match="there are 1000"):
        points.add(Point(SOFTWARE, 0x5000, 1), 0x5000)
