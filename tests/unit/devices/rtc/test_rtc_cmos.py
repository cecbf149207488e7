"""The CMOS bytes that tell of memory and disks."""

from __future__ import annotations

from struct import pack

import pytest

from kvmbox.devices.rtc.cmos import disk_bytes, memory_size_bytes
from kvmbox.devices.rtc.model import RtcMc146818

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
TRACKS = 16 * 63


@pytest.mark.parametrize(
    ("memory", "base_kib", "extended_kib", "above_16m", "above_4g"),
    [
        (0, 0, 0, 0, 0),
        (512 * KIB, 512, 0, 0, 0),
        (1 * MIB, 640, 0, 0, 0),
        (2 * MIB, 640, 1024, 0, 0),
        (16 * MIB, 640, 15 * 1024, 0, 0),
        (17 * MIB, 640, 16 * 1024, 16, 0),
        (64 * MIB, 640, 63 * 1024, 48 * 16, 0),
        (65 * MIB, 640, 0xFFFF, 49 * 16, 0),
        (128 * MIB, 640, 0xFFFF, 0x0700, 0),
        (3 * GIB, 640, 0xFFFF, 0xBF00, 0),
        (4 * GIB, 640, 0xFFFF, 0xBF00, 0x4000),
        (64 * GIB, 640, 0xFFFF, 0xBF00, 0x0F4000),
    ],
)
def test_cmos_memory_sizes_are_filled_in(
    memory: int, base_kib: int, extended_kib: int, above_16m: int, above_4g: int
) -> None:
    found = memory_size_bytes(memory)
    assert found[0x15] | found[0x16] << 8 == base_kib
    assert found[0x17] | found[0x18] << 8 == extended_kib
    assert (found[0x30], found[0x31]) == (found[0x17], found[0x18])
    assert found[0x34] | found[0x35] << 8 == above_16m
    assert found[0x5B] | found[0x5C] << 8 | found[0x5D] << 16 == above_4g
    assert len(found) == 11


def test_cmos_absurd_memory_stays_within_its_bytes() -> None:
    assert set(memory_size_bytes(1 << 80).values()) <= set(range(256))


def test_rtc_ram_starts_with_memory_sizes_and_zeros_elsewhere() -> None:
    model = RtcMc146818(base_seconds=0, memory_bytes=128 * MIB)
    ram = {}
    for address in range(0x0E, 0x80):
        model.write(0, 0, 1, address)
        ram[address] = model.read(0, 1, 1)
    filled = {0x15: 0x80, 0x16: 0x02, 0x17: 0xFF, 0x18: 0xFF, 0x30: 0xFF, 0x31: 0xFF, 0x34: 0x00, 0x35: 0x07}
    assert {a: v for a, v in ram.items() if v} == {a: v for a, v in filled.items() if v} | {0x32: 0x19}
    model.write(0, 0, 1, 0x15)
    model.write(0, 1, 1, 0x12)
    assert model.read(0, 1, 1) == 0x12


def geometry(cylinders: int) -> list[int]:
    """The nine bytes of a disk with this many cylinders."""
    low, high = cylinders & 0xFF, cylinders >> 8
    return [low, high, 16, 0xFF, 0xFF, 0xC8, low, high, 63]


@pytest.mark.parametrize(
    ("cylinders", "types", "extended", "translations"),
    [
        ((0, 0, 0, 0), 0, (0, 0), 0),
        ((20, 0, 0, 0), 0xF0, (47, 0), 0),
        ((0, 20, 0, 0), 0x0F, (0, 47), 0),
        ((1024, 1025, 0, 0), 0xFF, (47, 47), 0b0100),
        ((0, 0, 2000, 16383), 0, (0, 0), 0b01010000),
        ((16383, 0, 1024, 0), 0xF0, (47, 0), 0b0001),
    ],
)
def test_cmos_disks_are_filled_in(
    cylinders: tuple[int, ...], types: int, extended: tuple[int, int], translations: int
) -> None:
    found = disk_bytes(pack("<4Q", *(count * TRACKS for count in cylinders)))
    assert [found.get(address, 0) for address in (0x12, 0x19, 0x1A, 0x39)] == [types, *extended, translations]
    for count, first in zip(cylinders, (0x1B, 0x24), strict=False):
        wanted = geometry(count) if count else [0] * 9
        assert [found.get(address, 0) for address in range(first, first + 9)] == wanted


@pytest.mark.parametrize(("sectors", "cylinders"), [(1, 2), (3 * TRACKS - 1, 2), (1 << 40, 16383)])
def test_cmos_cylinders_of_a_disk_have_limits(sectors: int, cylinders: int) -> None:
    found = disk_bytes(pack("<Q", sectors))
    assert [found[address] for address in range(0x1B, 0x24)] == geometry(cylinders)


def test_rtc_ram_tells_of_disks() -> None:
    model = RtcMc146818(base_seconds=0, memory_bytes=128 * MIB, disks=pack("<2Q", 20 * TRACKS, 30 * TRACKS))
    model.write(0, 0, 1, 0x12)
    assert model.read(0, 1, 1) == 0xFF
