"""The built-in BIOS: its ROM with the parameters of one machine, and the disk that it shows. Pure.

The ROM (guests/bios) is built once. It begins with a header that says where its vector stubs and its
parameters are; the parameters are filled in here. `struct parameters` of guests/bios/bios.h has the layout.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox import layout
from kvmbox.firmware.memory_map import AVAILABLE, MemoryRange
from kvmbox.lean import Value

ROM_SIZE: Final = layout.HIGH_MEMORY_START - layout.BIOS_ROM
ROM_SEGMENT: Final = 0xF000

DISKETTE: Final = 0x00
HARD_DISK: Final = 0x80

_HEADER: Final = struct.Struct("<12sHHHHH")
_NAME: Final = b"kvmbox BIOS\0"
_VERSION: Final = 2
_ROM_OFFSET: Final = layout.BIOS_ROM - (ROM_SEGMENT << 4)
_PARAMETERS: Final = struct.Struct("<4B3H3HII5HH")
_RANGE: Final = struct.Struct("<QQII")
_MOST_RANGES: Final = 16

_VECTORS: Final = 256
_HANDLER: Final = struct.Struct("<HH")  # vector, offset in the segment
_NO_HANDLER: Final = 0xFFFF

# The 8259s as `start_interrupts` of guests/bios/start.c leaves them: first vector, and mask. Timer,
# keyboard and cascade are open.
FIRST_VECTORS: Final = (0x08, 0x70)
MASKS: Final = (0xF8, 0xFF)
TIMER_MODE: Final = 0x34
"""Counter 0 of the PIT: both bytes, mode 2, with a count of 0, which is 65536."""


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


class Drives(Value):
    """The image as the drives 0x00 and 0x80. `boot` is DL; `diskette_type` is what int 0x13 AH=08 says.

    Of `sectors`, those behind the image are zeros.
    """

    boot: int
    sectors: int
    diskette: Geometry
    diskette_type: int
    disk: Geometry


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

_HEADS: Final = 16
_TRACK: Final = 63
_FEWEST_CYLINDERS: Final = 2
_MOST_CYLINDERS: Final = 1024
_MOST_HEADS: Final = 255


def sectors_of(size: int) -> int:
    """How many sectors an image of `size` bytes has; the last one is filled up with zeros."""
    return -(-size // layout.SECTOR_SIZE)


def drives(size: int) -> Drives:
    """An image of `size` bytes as drives.

    An image of exactly the size of a diskette boots as drive 0x00, any other one as drive 0x80. One that fits
    on a diskette of 1.44 MB can be read as both, and both are as large as the diskette: loaders read a fixed
    number of sectors, whatever the size of what they load.
    """
    sectors = sectors_of(size)
    kib, rest = divmod(size, layout.KIB)
    is_diskette = rest == 0 and kib in _DISKETTES
    geometry, kind = _DISKETTES[kib] if is_diskette else _USUAL_DISKETTE
    room = geometry.cylinders * geometry.heads * geometry.sectors
    if sectors > room:
        geometry, kind = NO_DRIVE, 0
    else:
        sectors = room
    return Drives(DISKETTE if is_diskette else HARD_DISK, sectors, geometry, kind, hard_disk(sectors))


def hard_disk(sectors: int) -> Geometry:
    """The geometry of a hard disk, with at most 1024 cylinders.

    16 heads of 63 sectors; a larger disk has more heads, as the Enhanced Disk Drive Specification's annex on
    translation gives them.
    """
    heads = _HEADS
    while sectors // (heads * _TRACK) > _MOST_CYLINDERS and heads < _MOST_HEADS:
        heads = min(2 * heads, _MOST_HEADS)
    cylinders = sectors // (heads * _TRACK)
    return Geometry(max(_FEWEST_CYLINDERS, min(cylinders, _MOST_CYLINDERS)), heads, _TRACK)


def rom_with(
    rom: bytes,
    ranges: tuple[MemoryRange, ...],
    disk: Drives | None,
    *,
    entry: Entry | None = None,
    trap: bool = False,
) -> bytes:
    """The ROM for a machine with the memory map `ranges`.

    It boots from `disk`, or enters a flat image at `entry`. With `trap` it provides nothing, and each call
    ends the run. ValueError if `rom` is none of this version.
    """
    place = _header(rom).parameters
    above = next(
        (one.length for one in ranges if one.base == layout.HIGH_MEMORY_START and one.kind == AVAILABLE),
        0,
    )
    start = entry or Entry(0, 0, 0, 0, 0)
    shown = disk or Drives(HARD_DISK, 0, NO_DRIVE, 0, NO_DRIVE)
    data = _PARAMETERS.pack(
        trap,
        shown.boot,
        shown.diskette_type,
        entry is not None,
        *(shown.diskette.cylinders, shown.diskette.heads, shown.diskette.sectors),
        *(shown.disk.cylinders, shown.disk.heads, shown.disk.sectors),
        shown.sectors,
        above // layout.KIB,
        *(start.ip, start.cs, start.sp, start.ss, start.data),
        len(ranges),
    )
    if len(ranges) > _MOST_RANGES:
        raise ValueError(f"the BIOS has room for {_MOST_RANGES} memory ranges, not for {len(ranges)}")
    data += b"".join(_RANGE.pack(one.base, one.length, one.kind, 0) for one in ranges)
    return rom[:place] + data + rom[place + len(data) :]


def trap_vectors(rom: bytes) -> bytes:
    """A real-mode vector table whose vectors all lead to the ROM. ValueError as of `rom_with`."""
    header = _header(rom)
    return b"".join(
        struct.pack("<HH", header.stubs + header.stub_size * vector, ROM_SEGMENT)
        for vector in range(_VECTORS)
    )


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
