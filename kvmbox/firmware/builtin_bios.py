"""The built-in BIOS: its ROM with the parameters of one machine, and the drives that it shows. Pure.

The ROM (guests/bios) is built once. It begins with a header that says where its vector stubs and its
parameters are; the parameters are filled in here. `struct parameters` of guests/bios/bios.h has the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.firmware.memory_map import AVAILABLE, MemoryRange
from kvmbox.firmware.platform import NO_DRIVES, Further

ROM_SIZE: Final = layout.HIGH_MEMORY_START - layout.BIOS_ROM
ROM_SEGMENT: Final = 0xF000

DISKETTE: Final = 0x00
HARD_DISK: Final = 0x80
CD: Final = 0xE0
"""Numbers (DL) of the first drive of each kind."""

CD_SECTOR: Final = 2048

_HEADER: Final = struct.Struct("<12sHHHHH")
_NAME: Final = b"kvmbox BIOS\0"
_VERSION: Final = 3
_ROM_OFFSET: Final = layout.BIOS_ROM - (ROM_SEGMENT << 4)
_PARAMETERS: Final = struct.Struct("<4BI5HH")
_SPECIFICATION: Final = struct.Struct("<BBBBIHHHHBBB")
_DRIVE: Final = struct.Struct("<4B4HIQQ")
_MOST_DRIVES: Final = 20
_RANGE: Final = struct.Struct("<QQII")
_MOST_RANGES: Final = 16

# What the ROM does when it starts.
_SERVES_ONLY: Final = 0  # a kernel was started: whoever jumps to the reset vector wants a reset
_BOOTS: Final = 1
_ENTERS: Final = 2

_VECTORS: Final = 256
_HANDLER: Final = struct.Struct("<HH")  # vector, offset in the segment
_NO_HANDLER: Final = 0xFFFF

# The 8259s as `start_interrupts` of guests/bios/start.c leaves them: first vector, and mask. Timer,
# keyboard and cascade are open.
FIRST_VECTORS: Final = (0x08, 0x70)
MASKS: Final = (0xF8, 0xFF)


class Geometry(Value):
    """Cylinders, heads, and sectors in a track. All 0: there is no such drive."""

    cylinders: int = 0
    heads: int = 0
    sectors: int = 0


NO_DRIVE: Final = Geometry()


class Entry(Value):
    """Where a flat image is entered: CS:IP, SS:SP, and the other segments."""

    cs: int
    ip: int
    ss: int
    sp: int
    data: int


class Drive(Value):
    """A drive of int 0x13. `number` is DL, `unit` counts the drives of the device (`devices.bios.boot_disk`).

    `diskette_type` is what AH=08 says of a diskette. `sectors` are of `sector_size` bytes: 512, or 2048 on a
    CD, which has no geometry.
    """

    number: int
    unit: int
    sectors: int
    geometry: Geometry = NO_DRIVE
    diskette_type: int = 0
    sector_size: int = layout.SECTOR_SIZE


class CdBoot(Value):
    """A boot entry of a CD: El Torito Bootable CD-ROM Format Specification 1.0, figures 3 and 4.

    `media` is 0 for no emulation, 1, 2 and 3 for a diskette of 1200, 1440 and 2880 KiB, and 4 for a hard
    disk, whose geometry is `geometry`. `count` sectors of 512 bytes are loaded to `segment`. They begin at
    sector `lba` of the CD.
    """

    media: int
    segment: int
    count: int
    lba: int
    geometry: Geometry = NO_DRIVE


class Drives(Value):
    """All drives, and from which one the BIOS boots: its number. `cd` says how it boots from a CD."""

    boot: int
    table: tuple[Drive, ...]
    cd: CdBoot | None = None


# Size in KiB: geometry and drive type of int 0x13 AH=08 (IBM PC AT and PS/2 BIOS interface references).
_DISKETTES: Final = {
    160: (Geometry(40, 1, 8), 1),
    180: (Geometry(40, 1, 9), 1),
    320: (Geometry(40, 2, 8), 1),
    360: (Geometry(40, 2, 9), 1),
    720: (Geometry(80, 2, 9), 3),
    1200: (Geometry(80, 2, 15), 2),
    1440: (Geometry(80, 2, 18), 4),
    2880: (Geometry(80, 2, 36), 6),
}
_USUAL_DISKETTE: Final = _DISKETTES[1440]

_NO_BOOT: Final = 0xFF
"""What `Drives.boot` says of a BIOS that boots from no drive."""

_HEADS: Final = 16
_TRACK: Final = 63
_FEWEST_CYLINDERS: Final = 2
_MOST_CYLINDERS: Final = 1024
_MOST_HEADS: Final = 255


def sectors_of(size: int) -> int:
    """How many sectors an image of `size` bytes has; the last one is filled up with zeros."""
    return -(-size // layout.SECTOR_SIZE)


def is_diskette(size: int) -> bool:
    """Whether an image of `size` bytes boots as a diskette."""
    kib, rest = divmod(size, layout.KIB)
    return rest == 0 and kib in _DISKETTES


def drives(size: int, further: Further = NO_DRIVES) -> Drives:
    """An image of `size` bytes, which is unit 0, as drives, and `further` ones.

    An image of exactly the size of a diskette boots as drive 0x00, any other one as drive 0x80. One that fits
    on a diskette of 1.44 MB can be read as both, and both are as large as the diskette: loaders read a fixed
    number of sectors, whatever the size of what they load. A diskette gives drive 0x80 up to a further disk.
    """
    sectors = sectors_of(size)
    boots_as_diskette = is_diskette(size)
    geometry, kind = _DISKETTES[size // layout.KIB] if boots_as_diskette else _USUAL_DISKETTE
    room = geometry.cylinders * geometry.heads * geometry.sectors
    table = []
    if sectors <= room:
        sectors = room
        table.append(Drive(DISKETTE, 0, sectors, geometry, kind))
    first = HARD_DISK
    if not (boots_as_diskette and further.disks):
        table.append(Drive(first, 0, sectors, hard_disk(sectors)))
        first += 1
    table += _others(further, first, CD)
    return Drives(DISKETTE if boots_as_diskette else HARD_DISK, tuple(table))


def cd_drives(size: int, boot: CdBoot, further: Further = NO_DRIVES) -> Drives:
    """An image of `size` bytes, which is unit 0, as the CD to boot from, and `further` drives."""
    cd = Drive(CD, 0, _cd_sectors(size), sector_size=CD_SECTOR)
    return Drives(CD, (cd, *_others(further, HARD_DISK, CD + 1)), boot)


def served_drives(further: Further) -> Drives:
    """The drives of a BIOS that boots none of them, and has no image: `further` ones, from unit 0 on."""
    return Drives(_NO_BOOT, tuple(_others(further, HARD_DISK, CD, first_unit=0)))


def unit_sectors(size: int) -> int:
    """How many sectors unit 0 has for an image of `size` bytes, whether that is a disk or a CD."""
    return max(drives(size).table[0].sectors, _cd_sectors(size) * CD_SECTOR // layout.SECTOR_SIZE)


def _cd_sectors(size: int) -> int:
    return -(-size // CD_SECTOR)


def _others(further: Further, first_disk: int, first_cd: int, first_unit: int = 1) -> Iterator[Drive]:
    """Units from `first_unit` on: hard disks, and then CDs."""
    for index, sectors in enumerate(further.disks):
        yield Drive(first_disk + index, first_unit + index, sectors, hard_disk(sectors))
    for index, sectors in enumerate(further.cds, len(further.disks)):
        number = first_cd + index - len(further.disks)
        yield Drive(number, first_unit + index, sectors, sector_size=CD_SECTOR)


def hard_disk(sectors: int) -> Geometry:
    """The geometry that int 0x13 shows of a hard disk, with at most 1024 cylinders.

    16 heads of 63 sectors. A disk of more cylinders has more heads, by the LBA-assisted translation of the
    Enhanced Disk Drive Specification 3.0, annex C. SeaBIOS counts heads in the same way.
    """
    heads = _HEADS
    if sectors // (_HEADS * _TRACK) > _MOST_CYLINDERS:
        needed = sectors // _TRACK // _MOST_CYLINDERS
        while heads < needed and heads < _MOST_HEADS:
            heads *= 2
        heads = min(heads, _MOST_HEADS)
    cylinders = sectors // (heads * _TRACK)
    return Geometry(max(_FEWEST_CYLINDERS, min(cylinders, _MOST_CYLINDERS)), heads, _TRACK)


def rom_with(
    rom: bytes,
    ranges: tuple[MemoryRange, ...],
    shown: Drives | None,
    *,
    entry: Entry | None = None,
    trap: bool = False,
    linear: bool = False,
) -> bytes:
    """The ROM for a machine with the memory map `ranges`.

    It boots from `shown`, or enters a flat image at `entry`; without both it only serves who calls it. With
    `trap` it provides nothing, and each call ends the run. `linear` says that a linear mode is on. ValueError
    if `rom` is none of this version.
    """
    place = _header(rom).parameters
    above = next(
        (one.length for one in ranges if one.base == layout.HIGH_MEMORY_START and one.kind == AVAILABLE),
        0,
    )
    start = entry or Entry(0, 0, 0, 0, 0)
    shown = shown or Drives(HARD_DISK, ())
    if len(ranges) > _MOST_RANGES:
        raise ValueError(f"the BIOS has room for {_MOST_RANGES} memory ranges, not for {len(ranges)}")
    if len(shown.table) > _MOST_DRIVES:
        raise ValueError(f"the BIOS has room for {_MOST_DRIVES} drives, not for {len(shown.table)}")
    boots = _BOOTS if shown.table and shown.boot != _NO_BOOT else _SERVES_ONLY
    data = _PARAMETERS.pack(
        trap,
        shown.boot,
        boots if entry is None else _ENTERS,
        len(shown.table),
        above // layout.KIB,
        *(start.ip, start.cs, start.sp, start.ss, start.data),
        len(ranges),
    )
    data += _specification(shown.cd) if shown.cd is not None else bytes(_SPECIFICATION.size)
    data += bytes((linear,))
    data += b"".join(map(_drive, shown.table)).ljust(_MOST_DRIVES * _DRIVE.size, b"\0")
    data += b"".join(_RANGE.pack(one.base, one.length, one.kind, 0) for one in ranges)
    return rom[:place] + data + rom[place + len(data) :]


def _specification(boot: CdBoot) -> bytes:
    """The specification packet (figure 7) of the CD's entry. The geometry is in the form of AH=08."""
    cylinders, heads, track = boot.geometry.cylinders, boot.geometry.heads, boot.geometry.sectors
    last = max(cylinders - 1, 0)
    return _SPECIFICATION.pack(
        *(_SPECIFICATION.size, boot.media, 0, 0, boot.lba, 0, 0, boot.segment, boot.count),
        *(last & 0xFF, last >> 2 & 0xC0 | track, max(heads - 1, 0)),
    )


def _drive(one: Drive) -> bytes:
    geometry = (one.geometry.cylinders, one.geometry.heads, one.geometry.sectors)
    return _DRIVE.pack(
        one.number, one.unit, one.diskette_type, 0, one.sector_size, *geometry, 0, 0, one.sectors
    )


def trap_vectors(rom: bytes) -> bytes:
    """A real-mode vector table whose vectors all lead to the ROM. ValueError as of `rom_with`."""
    header = _header(rom)
    first = ROM_SEGMENT << 16 | header.stubs
    return struct.pack(f"<{_VECTORS}I", *range(first, first + _VECTORS * header.stub_size, header.stub_size))


def service_vectors(rom: bytes) -> bytes:
    """The real-mode vector table that the ROM makes when it starts. ValueError as of `rom_with`."""
    table = bytearray(trap_vectors(rom))
    place = _header(rom).handlers
    while True:
        vector, offset = _HANDLER.unpack_from(rom, place)
        if vector == _NO_HANDLER:
            return bytes(table)
        struct.pack_into("<HH", table, 4 * vector, offset, ROM_SEGMENT)
        place += _HANDLER.size


class _Header(Value):
    """Offset of the first vector stub in the segment, size of a stub, places of other things in the ROM."""

    stubs: int
    stub_size: int
    parameters: int
    handlers: int


def _header(rom: bytes) -> _Header:
    if len(rom) != ROM_SIZE or not rom.startswith(_NAME):
        raise ValueError("no ROM of the built-in BIOS")
    _, version, stubs, size, parameters, handlers = _HEADER.unpack_from(rom)
    if version != _VERSION:
        raise ValueError(f"a built-in BIOS of version {version}, not {_VERSION}")
    return _Header(stubs, size, parameters - _ROM_OFFSET, handlers - _ROM_OFFSET)
