"""CD images: the volume of an ISO 9660 file system, and what a BIOS boots from it (El Torito). Pure.

An image has volume descriptors from sector 16 on, up to a terminator (ECMA-119, 8.1 to 8.4). One of
them may be a boot record that says where the boot catalog is. The catalog has entries of 32 bytes: one that
validates it, the default entry, and sections of more entries for other platforms ("El Torito" Bootable CD-ROM
Format Specification 1.0, 2.0 to 2.5). A BIOS boots the default entry. The sections are named only.

Every field may be hostile: what is read is bounded, and what cannot be is a `problem` in words.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.base.value_classes import Value

Read = Callable[[int, int], bytes]
"""`size` bytes from `offset`, or less where the image ends: (offset, size) → bytes. May raise OSError."""

CD_SECTOR: Final = 2048

NO_EMULATION: Final = "no emulation"
FLOPPY_1200: Final = "1.2 MB diskette"
FLOPPY_1440: Final = "1.44 MB diskette"
FLOPPY_2880: Final = "2.88 MB diskette"
HARD_DISK: Final = "hard disk"

MEDIA: Final = (NO_EMULATION, FLOPPY_1200, FLOPPY_1440, FLOPPY_2880, HARD_DISK)
_IMAGE_SIZES: Final = {FLOPPY_1200: 2400, FLOPPY_1440: 2880, FLOPPY_2880: 5760}  # sectors of 512 bytes

_FIRST_DESCRIPTOR: Final = 16
_MOST_DESCRIPTORS: Final = 64
_IDENTIFIER: Final = b"CD001"
_BOOT_RECORD: Final = 0
_PRIMARY: Final = 1
_TERMINATOR: Final = 255
_EL_TORITO: Final = b"EL TORITO SPECIFICATION".ljust(32, b"\0")
_CATALOG_AT: Final = 0x47

_ENTRY_SIZE: Final = 32
_VALIDATION: Final = struct.Struct("<BB2x24sH2s")  # header, platform, identifier, checksum, key
_ENTRY: Final = struct.Struct("<BBHBxHI")  # indicator, media, segment, system type, sectors, first CD sector
_SECTION: Final = struct.Struct("<BBH28s")  # header, platform, entries, identifier
_KEY: Final = b"\x55\xaa"
_VALID: Final = 0x01
_BOOTABLE: Final = 0x88
_MEDIA_BITS: Final = 0x0F
_MORE_SECTIONS: Final = 0x90
_LAST_SECTION: Final = 0x91
_X86: Final = 0x00
_PLATFORMS: Final = {0x00: "x86", 0x01: "PowerPC", 0x02: "Mac", 0xEF: "EFI"}

_DEFAULT_SEGMENT: Final = 0x7C0
_MEMORY_END: Final = 0xA0000


class BootEntry(Value):
    """What a BIOS boots from a CD.

    `kind` is NO_EMULATION, FLOPPY_1200, FLOPPY_1440, FLOPPY_2880 or HARD_DISK. `sectors` sectors of 512 bytes
    are loaded to `segment`:0 from the CD's sector `lba` (2048 bytes). An emulated disk begins there.
    """

    kind: str
    segment: int
    sectors: int
    lba: int


class Iso(Value):
    """A CD image: the name of its volume, and its boot catalog.

    `entry` is None where a BIOS finds nothing to boot. Then `problem` says why. `sections` names the
    platforms of the catalog's other entries.
    """

    volume: str
    entry: BootEntry | None
    problem: str
    sections: tuple[str, ...] = ()


class _NoBoot(Exception):
    """Why a BIOS does not boot this CD, in words."""


def read_iso(read: Read, size: int) -> Iso | None:
    """The CD in an image of `size` bytes, or None if it is none. Raises OSError if `read` does."""
    volume: str | None = None
    catalog_at: int | None = None
    for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + _MOST_DESCRIPTORS):
        descriptor = read(number * CD_SECTOR, CD_SECTOR)
        if len(descriptor) < CD_SECTOR or descriptor[1:6] != _IDENTIFIER or descriptor[0] == _TERMINATOR:
            break
        if descriptor[0] == _PRIMARY and volume is None:
            volume = _text(descriptor[40:72])
        if descriptor[0] == _BOOT_RECORD and descriptor[7:39] == _EL_TORITO and catalog_at is None:
            catalog_at = int.from_bytes(descriptor[_CATALOG_AT : _CATALOG_AT + 4], "little")
    if volume is None:
        return None
    if catalog_at is None:
        return Iso(volume, None, "it has no El Torito boot record")
    catalog = read(catalog_at * CD_SECTOR, CD_SECTOR)
    try:
        platform = _platform_of(catalog)
    except _NoBoot as reason:
        return Iso(volume, None, str(reason))
    sections = _sections(catalog)
    if platform != _X86:
        name = _platform_name(platform)
        return Iso(volume, None, f"its boot catalog is for {name}, not for a BIOS", (name, *sections))
    try:
        return Iso(volume, _default_entry(catalog, size), "", sections)
    except _NoBoot as reason:
        return Iso(volume, None, str(reason), sections)


def _platform_of(catalog: bytes) -> int:
    """The platform that the validation entry names. Raises _NoBoot."""
    if len(catalog) < CD_SECTOR:
        raise _NoBoot("its boot catalog is beyond the end of the image")
    header, platform, _, _, key = _VALIDATION.unpack_from(catalog)
    if header != _VALID or key != _KEY:
        raise _NoBoot("its boot catalog does not begin with a validation entry")
    if sum(struct.unpack_from("<16H", catalog)) & 0xFFFF:
        raise _NoBoot("the checksum of its boot catalog is wrong")
    return int(platform)


def _default_entry(catalog: bytes, size: int) -> BootEntry:
    """Raises _NoBoot."""
    indicator, media, segment, _, sectors, lba = _ENTRY.unpack_from(catalog, _ENTRY_SIZE)
    if indicator != _BOOTABLE:
        raise _NoBoot("the default entry of its boot catalog is not bootable")
    if media & _MEDIA_BITS >= len(MEDIA):
        raise _NoBoot(f"its boot catalog asks for media type {media & _MEDIA_BITS}, which does not exist")
    kind = MEDIA[media & _MEDIA_BITS]
    segment = segment or _DEFAULT_SEGMENT
    if not sectors:
        raise _NoBoot("its boot catalog loads no sector")
    if segment * 16 + sectors * SECTOR_SIZE > _MEMORY_END:
        raise _NoBoot(f"its boot catalog loads {sectors} sectors to segment {segment:#x}: beyond 640 KiB")
    needed = max(sectors, _IMAGE_SIZES.get(kind, 0))
    if lba < _FIRST_DESCRIPTOR or lba * CD_SECTOR + needed * SECTOR_SIZE > size:
        raise _NoBoot(f"its boot catalog names {needed} sectors from CD sector {lba}, which it does not have")
    return BootEntry(kind, segment, sectors, lba)


def _sections(catalog: bytes) -> tuple[str, ...]:
    """The platforms of the sections behind the default entry, as far as they are in the first sector."""
    names = []
    place = 2 * _ENTRY_SIZE
    while place < CD_SECTOR:
        header, platform, count, _ = _SECTION.unpack_from(catalog, place)
        if header not in (_MORE_SECTIONS, _LAST_SECTION):
            break
        names.append(_platform_name(platform))
        if header == _LAST_SECTION:
            break
        place += (1 + count) * _ENTRY_SIZE
    return tuple(names)


def _platform_name(number: int) -> str:
    return _PLATFORMS.get(number, f"platform {number:#x}")


def _text(raw: bytes) -> str:
    """A name padded with spaces, fit for a line."""
    words = raw.decode("ascii", "replace").rstrip(" \0")
    return "".join(character if character.isprintable() else "?" for character in words)
