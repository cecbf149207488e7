"""The ROM of the built-in BIOS: its parameters, and an image as drives."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from kvmbox import layout
from kvmbox.firmware.builtin_bios import (
    DISKETTE,
    HARD_DISK,
    NO_DRIVE,
    ROM_SIZE,
    Entry,
    Geometry,
    drives,
    hard_disk,
    rom_with,
    sectors_of,
    trap_vectors,
)
from kvmbox.firmware.memory_map import AVAILABLE, RESERVED, MemoryRange
from tests.support.bios_rom import PARAMETERS, make_rom

KIB: Final = layout.KIB
PLACE: Final = PARAMETERS
ROM: Final = make_rom()
MAP: Final = (
    MemoryRange(0, 0x9FC00, AVAILABLE),
    MemoryRange(0xF0000, 0x10000, RESERVED),
    MemoryRange(0x100000, 0x7F00000, AVAILABLE),
)


@pytest.mark.parametrize(("size", "sectors"), [(0, 0), (1, 1), (512, 1), (513, 2), (1440 * KIB, 2880)])
def test_last_sector_is_filled_up(size: int, sectors: int) -> None:
    assert sectors_of(size) == sectors


@pytest.mark.parametrize(
    ("kib", "geometry", "kind"),
    [
        (160, Geometry(40, 1, 8), 1),
        (360, Geometry(40, 2, 9), 1),
        (720, Geometry(80, 2, 9), 3),
        (1200, Geometry(80, 2, 15), 2),
        (1440, Geometry(80, 2, 18), 4),
        (2880, Geometry(80, 2, 36), 6),
    ],
)
def test_image_of_a_diskettes_size_boots_as_one(kib: int, geometry: Geometry, kind: int) -> None:
    found = drives(kib * KIB)

    assert found.boot == DISKETTE
    assert (found.diskette, found.diskette_type) == (geometry, kind)
    assert geometry.cylinders * geometry.heads * geometry.sectors == found.sectors
    assert found.disk.cylinders  # it can be read as a hard disk all the same


def test_small_image_boots_as_a_hard_disk_and_can_be_read_as_a_diskette() -> None:
    found = drives(512)

    assert found.boot == HARD_DISK
    assert (found.sectors, found.disk) == (2880, Geometry(2, 16, 63))
    assert (found.diskette, found.diskette_type) == (Geometry(80, 2, 18), 4)


def test_large_image_is_no_diskette() -> None:
    found = drives(1440 * KIB + 512)

    assert (found.boot, found.sectors) == (HARD_DISK, 2881)
    assert (found.diskette, found.diskette_type) == (NO_DRIVE, 0)


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        (1, Geometry(2, 16, 63)),  # as QEMU has it
        (117_187, Geometry(116, 16, 63)),  # 60 MB, measured there
        (1024 * 16 * 63, Geometry(1024, 16, 63)),
        (1025 * 16 * 63, Geometry(512, 32, 63)),
        (1 << 32, Geometry(1024, 255, 63)),
    ],
)
def test_geometry_of_a_hard_disk_fits_into_int_13h(sectors: int, geometry: Geometry) -> None:
    assert hard_disk(sectors) == geometry


def test_parameters_are_where_the_rom_says_and_nothing_else_changes() -> None:
    rom = rom_with(ROM, MAP, drives(1440 * KIB), entry=Entry(0x1000, 2, 0x3000, 0x8000, 0x4000))

    start = struct.unpack_from("<4B3H3HII5HH", rom, PLACE)
    assert start[:4] == (0, DISKETTE, 4, 1)
    assert start[4:7] == (80, 2, 18)
    assert start[7:10] == (2, 16, 63)
    assert start[10:12] == (2880, 0x7F00000 // KIB)
    assert start[12:17] == (2, 0x1000, 0x8000, 0x3000, 0x4000)
    assert start[17] == 3
    ranges = struct.iter_unpack("<QQII", rom[PLACE + 36 : PLACE + 36 + 3 * 24])
    assert list(ranges) == [(one.base, one.length, one.kind, 0) for one in MAP]
    assert rom[:PLACE] == ROM[:PLACE]
    assert rom[PLACE + 36 + 3 * 24 :] == ROM[PLACE + 36 + 3 * 24 :]


def test_rom_without_a_disk_that_traps() -> None:
    rom = rom_with(ROM, MAP[:1], None, trap=True)

    start = struct.unpack_from("<4B3H3HII5HH", rom, PLACE)
    assert start == (1, HARD_DISK, 0, 0, *[0] * 6, 0, 0, *[0] * 5, 1)


def test_trap_vectors_lead_to_the_stubs() -> None:
    vectors = list(struct.iter_unpack("<HH", trap_vectors(ROM)))

    assert vectors == [(0x9000 + 6 * number, 0xF000) for number in range(256)]


@pytest.mark.parametrize(
    "rom",
    [b"", ROM[:-1], b"another ROM".ljust(ROM_SIZE, b"\0"), make_rom(version=3)],
    ids=["none", "short", "another", "another version"],
)
def test_what_is_no_rom_of_this_version_is_refused(rom: bytes) -> None:
    with pytest.raises(ValueError, match="built-in BIOS"):
        rom_with(rom, MAP, None)


def test_more_ranges_than_the_rom_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="16 memory ranges"):
        rom_with(ROM, MAP[:1] * 17, None)
