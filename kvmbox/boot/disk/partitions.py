"""The partitions of a disk: an MBR with its chain of logical partitions, or a GPT. Pure.

UEFI Specification 2.10, 5.2 (MBR) and 5.3 (GPT). Every field may be hostile: what is read is bounded, loops
end, and what is wrong is a `problem` in words.
"""

from __future__ import annotations

import struct
from binascii import crc32
from typing import Final

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.base.value_classes import Value
from kvmbox.boot.disk.cd_image import Read
from kvmbox.boot.disk.file_systems import file_system

MBR: Final = "MBR"
GPT: Final = "GPT"

_SIGNATURE: Final = b"\x55\xaa"
_TABLE_AT: Final = 446
_RECORD: Final = struct.Struct("<B3xB3xII")  # status, type, first sector, number of sectors
_RECORDS: Final = 4
_STATUSES: Final = (0x00, 0x80)
_ACTIVE: Final = 0x80
_EXTENDED: Final = (0x05, 0x0F, 0x85)
_MOST_LOGICAL: Final = 128

_MBR_TYPES: Final = {
    number: name
    for name, numbers in (
        ("FAT12", (0x01,)),
        ("FAT16", (0x04, 0x06, 0x0E)),
        ("FAT32", (0x0B, 0x0C)),
        ("extended", _EXTENDED),
        ("NTFS or exFAT", (0x07,)),
        ("hidden NTFS", (0x17,)),
        ("Minix", (0x80, 0x81)),
        ("Linux swap", (0x82,)),
        ("Linux", (0x83,)),
        ("Linux LVM", (0x8E,)),
        ("FreeBSD", (0xA5,)),
        ("OpenBSD", (0xA6,)),
        ("NetBSD", (0xA9,)),
        ("ISO 9660", (0xCD,)),
        ("GPT", (0xEE,)),
        ("EFI system", (0xEF,)),
    )
    for number in numbers
}

_GPT_MAGIC: Final = b"EFI PART"
_GPT_HEADER: Final = struct.Struct("<8sIIIIQQQQ16sQIII")
_GPT_ENTRY: Final = struct.Struct("<16s16sQQQ72s")  # type, GUID, first, last, attributes, name
_MOST_ENTRIES: Final = 1024
_MOST_ENTRY_BYTES: Final = 1024

_GPT_TYPES: Final = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root x86-64",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "48465300-0000-11aa-aa11-00306543ecac": "HFS+",
}


class Partition(Value):
    """One partition. `start` and `size` are in bytes. `kind` is its type, and `file_system` what is in it."""

    number: int
    kind: str
    start: int
    size: int
    name: str = ""
    active: bool = False
    file_system: str = ""


class PartitionTable(Value):
    """The partitions of a disk. `scheme` is MBR or GPT. `problem` says what is wrong with it, or is empty."""

    scheme: str
    partitions: tuple[Partition, ...]
    problem: str = ""


class _Damaged(Exception):
    """What is wrong with a GPT, in words."""


def read_partitions(read: Read, size: int) -> PartitionTable | None:
    """The table of a disk of `size` bytes, or None if it has none. Raises OSError if `read` does."""
    found = _read_gpt(read, size) or _read_mbr(read)
    if found is None:
        return None
    beyond = [str(one.number) for one in found.partitions if one.start + one.size > size]
    problem = found.problem
    if beyond and not problem:
        problem = f"{_plural(beyond)} not all within the disk"
    named = tuple(_with_file_system(read, one, size) for one in found.partitions)
    return PartitionTable(found.scheme, named, problem)


def _plural(beyond: list[str]) -> str:
    return f"partition {beyond[0]} is" if len(beyond) == 1 else f"partitions {', '.join(beyond)} are"


def _with_file_system(read: Read, one: Partition, size: int) -> Partition:
    if one.kind == _MBR_TYPES[_EXTENDED[0]] or one.start >= size:
        return one
    name = file_system(read, one.start, min(one.size, size - one.start))
    return Partition(one.number, one.kind, one.start, one.size, one.name, one.active, name)


# --- MBR ---------------------------------------------------------------------------------------------------


def _read_mbr(read: Read) -> PartitionTable | None:
    records = _records(read(0, SECTOR_SIZE))
    if not records:
        return None
    found, problem = [], ""
    for number, status, kind, first, count in records:
        found.append(_mbr_partition(number, status, kind, first, count))
        if kind in _EXTENDED and not problem:
            logical, problem = _logical(read, first)
            found += logical
    return PartitionTable(MBR, tuple(sorted(found, key=lambda one: one.number)), problem)


def _records(sector: bytes) -> list[tuple[int, int, int, int, int]]:
    """The used records of a table: (number, status, type, first sector, sectors). None if it is no table."""
    if sector[-len(_SIGNATURE) :] != _SIGNATURE or len(sector) < SECTOR_SIZE:
        return []
    found = []
    for index in range(_RECORDS):
        status, kind, first, count = _RECORD.unpack_from(sector, _TABLE_AT + index * _RECORD.size)
        if not kind and not count:
            continue
        if status not in _STATUSES or not kind or not count:
            return []  # code or text of a boot sector
        found.append((index + 1, status, kind, first, count))
    return found


def _logical(read: Read, extended: int) -> tuple[list[Partition], str]:
    """The partitions in an extended one, which is a chain of tables; and what is wrong with it."""
    found: list[Partition] = []
    seen: set[int] = set()
    place = extended
    while place not in seen:
        if len(seen) == _MOST_LOGICAL:
            return found, f"it has more than {_MOST_LOGICAL} logical partitions"
        seen.add(place)
        following = None
        for _, status, kind, first, count in _records(read(place * SECTOR_SIZE, SECTOR_SIZE)):
            if kind in _EXTENDED:
                following = extended + first
            else:
                found.append(_mbr_partition(5 + len(found), status, kind, place + first, count))
        if following is None:
            return found, ""
        place = following
    return found, "its chain of logical partitions runs in a circle"


def _mbr_partition(number: int, status: int, kind: int, first: int, count: int) -> Partition:
    name = _MBR_TYPES.get(kind, f"type {kind:#04x}")
    return Partition(number, name, first * SECTOR_SIZE, count * SECTOR_SIZE, active=status == _ACTIVE)


# --- GPT ---------------------------------------------------------------------------------------------------


def _read_gpt(read: Read, size: int) -> PartitionTable | None:
    """The table at the beginning of the disk, or else its copy at the end."""
    problem = ""
    for place in (1, size // SECTOR_SIZE - 1):
        if place < 1:
            continue
        sector = read(place * SECTOR_SIZE, SECTOR_SIZE)
        if sector[: len(_GPT_MAGIC)] != _GPT_MAGIC or len(sector) < SECTOR_SIZE:
            continue
        try:
            found = _entries(read, sector, place)
        except _Damaged as reason:
            problem = problem or str(reason)
            continue
        return PartitionTable(GPT, found, f"{problem}; its copy is right" if problem else "")
    return PartitionTable(GPT, (), problem) if problem else None


def _entries(read: Read, sector: bytes, place: int) -> tuple[Partition, ...]:
    """The partitions of the GPT whose header is in `sector`. Raises _Damaged."""
    _, _, length, crc, _, own, _, _, _, _, first, count, width, entries_crc = _GPT_HEADER.unpack_from(sector)
    if not _GPT_HEADER.size <= length <= SECTOR_SIZE:
        raise _Damaged(f"its header says that it has {length} bytes")
    # The CRC is that of the header with zeros in its place.
    if crc32(sector[:16] + bytes(4) + sector[20:length]) != crc:
        raise _Damaged("the CRC of its header is wrong")
    if own != place:
        raise _Damaged(f"its header says that it is in sector {own}, and is in {place}")
    if count > _MOST_ENTRIES or not _GPT_ENTRY.size <= width <= _MOST_ENTRY_BYTES:
        raise _Damaged(f"it has {count} entries of {width} bytes")
    array = read(first * SECTOR_SIZE, count * width)
    if len(array) < count * width or crc32(array) != entries_crc:
        raise _Damaged("the CRC of its entries is wrong")
    found = []
    for index in range(count):
        kind, _, start, last, _, name = _GPT_ENTRY.unpack_from(array, index * width)
        if any(kind) and start <= last:
            found.append(
                Partition(
                    index + 1,
                    _GPT_TYPES.get(_guid(kind), _guid(kind)),
                    start * SECTOR_SIZE,
                    (last - start + 1) * SECTOR_SIZE,
                    _name(name),
                )
            )
    return tuple(found)


def _guid(raw: bytes) -> str:
    """UEFI Specification 2.10, appendix A: the first three fields are little-endian."""
    first, second, third = struct.unpack_from("<IHH", raw)
    return f"{first:08x}-{second:04x}-{third:04x}-{raw[8:10].hex()}-{raw[10:].hex()}"


def _name(raw: bytes) -> str:
    text = raw.decode("utf-16-le", "replace").partition("\0")[0]
    return "".join(character if character.isprintable() else "?" for character in text)
