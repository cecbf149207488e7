"""The ROM of the built-in BIOS: its parameters, and an image as drives."""

from __future__ import annotations

import struct
from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.firmware.builtin_bios import (
    DISKETTE,
    HARD_DISK,
    ROM_SIZE,
    CdBoot,
    Drive,
    Drives,
    Entry,
    Geometry,
    cd_drives,
    drives,
    hard_disk,
    rom_with,
    sectors_of,
    trap_vectors,
    unit_sectors,
)
from kvmbox.firmware.memory_map import AVAILABLE, RESERVED, MemoryRange
from kvmbox.firmware.platform import Further
from tests.support.bios_rom import PARAMETERS, make_rom

KIB: Final = layout.KIB
PLACE: Final = PARAMETERS
SERVE_ONLY, BOOT, ENTER = range(3)  # enum start of guests/bios/bios.h
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

    sectors = geometry.cylinders * geometry.heads * geometry.sectors
    assert found.boot == DISKETTE
    assert found.table == (
        Drive(DISKETTE, 0, sectors, geometry, kind),
        Drive(HARD_DISK, 0, sectors, hard_disk(sectors)),  # it can be read as a hard disk all the same
    )
    assert sectors * 512 == kib * KIB


def test_small_image_boots_as_a_hard_disk_and_can_be_read_as_a_diskette() -> None:
    found = drives(512)

    assert found.boot == HARD_DISK
    assert found.table == (
        Drive(DISKETTE, 0, 2880, Geometry(80, 2, 18), 4),
        Drive(HARD_DISK, 0, 2880, Geometry(2, 16, 63)),
    )


def test_large_image_is_no_diskette() -> None:
    found = drives(1440 * KIB + 512)

    assert found == Drives(HARD_DISK, (Drive(HARD_DISK, 0, 2881, Geometry(2, 16, 63)),))


@pytest.mark.parametrize(
    ("size", "boot", "numbers"),
    [
        (512, HARD_DISK, [(DISKETTE, 0), (0x80, 0), (0x81, 1), (0x82, 2), (0xE0, 3)]),
        (1440 * KIB, DISKETTE, [(DISKETTE, 0), (0x80, 1), (0x81, 2), (0xE0, 3)]),
        (5000 * KIB, HARD_DISK, [(0x80, 0), (0x81, 1), (0x82, 2), (0xE0, 3)]),
    ],
)
def test_further_drives_follow_the_image(size: int, boot: int, numbers: list[tuple[int, int]]) -> None:
    found = drives(size, Further(disks=(4000, 1 << 33), cds=(70,)))

    assert found.boot == boot
    assert [(one.number, one.unit) for one in found.table] == numbers
    assert found.table[-2].sectors == 1 << 33
    assert found.table[-1] == Drive(0xE0, 3, 70, sector_size=2048)


def test_cd_to_boot_from_is_the_first_one() -> None:
    boot = CdBoot(0, 0x7C0, 4, 33)

    found = cd_drives(2049, boot, Further(disks=(4000,), cds=(70,)))

    assert (found.boot, found.cd) == (0xE0, boot)
    assert [(one.number, one.unit, one.sectors) for one in found.table] == [
        (0xE0, 0, 2),
        (0x80, 1, 4000),
        (0xE1, 2, 70),
    ]


@pytest.mark.parametrize(("size", "sectors"), [(1, 2880), (1440 * KIB + 1, 2884), (2880 * KIB, 5760)])
def test_unit_of_the_image_has_room_for_it_as_a_disk_and_as_a_cd(size: int, sectors: int) -> None:
    assert unit_sectors(size) == sectors


@pytest.mark.parametrize(
    ("sectors", "geometry"),
    [
        (1, Geometry(2, 16, 63)),  # as QEMU has it
        (117_187, Geometry(116, 16, 63)),  # 60 MB, measured there
        (1024 * 16 * 63, Geometry(1024, 16, 63)),
        # What QEMU and SeaBIOS show of disks of these sizes, which have no partitions.
        (520 << 11, Geometry(1024, 16, 63)),
        (1 << 21, Geometry(1024, 32, 63)),
        (3 << 21, Geometry(780, 128, 63)),
        (6 << 21, Geometry(783, 255, 63)),
        (20 << 21, Geometry(1024, 255, 63)),
        (3 << 31, Geometry(1024, 255, 63)),
    ],
)
def test_geometry_of_a_hard_disk_fits_into_int_13h(sectors: int, geometry: Geometry) -> None:
    assert hard_disk(sectors) == geometry


def test_parameters_are_where_the_rom_says_and_nothing_else_changes() -> None:
    shown = cd_drives(5000, CdBoot(4, 0x7C0, 1, 33, Geometry(600, 16, 63)), Further(disks=(1 << 33,)))
    rom = rom_with(ROM, MAP, shown, entry=Entry(0x1000, 2, 0x3000, 0x8000, 0x4000))

    assert struct.unpack_from("<4BI6H", rom, PLACE) == (
        *(0, 0xE0, ENTER, 2, 0x7F00000 // KIB),
        *(2, 0x1000, 0x8000, 0x3000, 0x4000, 3),
    )
    # The packet has the last cylinder, sector and head as AH=08 tells them.
    packet = (0x13, 4, 0, 0, 33, 0, 0, 0x7C0, 1, 599 & 0xFF, 599 >> 8 << 6 | 63, 15)
    assert struct.unpack_from("<4BI4H3B", rom, PLACE + 20) == packet
    table = PLACE + 40
    assert list(struct.iter_unpack("<4B4HIQQ", rom[table : table + 64])) == [
        (0xE0, 0, 0, 0, 2048, 0, 0, 0, 0, 0, 3),
        (0x80, 1, 0, 0, 512, 1024, 255, 63, 0, 0, 1 << 33),
    ]
    assert rom[table + 64 : table + 640] == bytes(18 * 32)
    end = table + 640 + 3 * 24
    ranges = struct.iter_unpack("<QQII", rom[table + 640 : end])
    assert list(ranges) == [(one.base, one.length, one.kind, 0) for one in MAP]
    assert rom[:PLACE] == ROM[:PLACE]
    assert rom[end:] == ROM[end:]


@pytest.mark.parametrize(
    ("shown", "trap", "start"),
    [(None, True, SERVE_ONLY), (None, False, SERVE_ONLY), (drives(512), False, BOOT)],
)
def test_rom_boots_only_where_it_has_a_drive(shown: Drives | None, trap: bool, start: int) -> None:
    rom = rom_with(ROM, MAP[:1], shown, trap=trap)

    assert struct.unpack_from("<4B", rom, PLACE) == (trap, HARD_DISK, start, 0 if shown is None else 2)


def test_trap_vectors_lead_to_the_stubs() -> None:
    vectors = list(struct.iter_unpack("<HH", trap_vectors(ROM)))

    assert vectors == [(0x9000 + 6 * number, 0xF000) for number in range(256)]


@pytest.mark.parametrize(
    "rom",
    [b"", ROM[:-1], b"another ROM".ljust(ROM_SIZE, b"\0"), make_rom(version=2)],
    ids=["none", "short", "another", "another version"],
)
def test_what_is_no_rom_of_this_version_is_refused(rom: bytes) -> None:
    with pytest.raises(ValueError, match="built-in BIOS"):
        rom_with(rom, MAP, None)


def test_more_drives_than_the_rom_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="20 drives"):
        rom_with(ROM, MAP, drives(5000 * KIB, Further(disks=(1,) * 20)))


def test_more_ranges_than_the_rom_has_room_for_are_refused() -> None:
    with pytest.raises(ValueError, match="16 memory ranges"):
        rom_with(ROM, MAP[:1] * 17, None)
