"""File systems by name, from a few bytes at known places. Pure.

A name says what the bytes look like, and not that the file system is in order.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.boot.disk.cd_image import Read

_HEAD: Final = 4096
"""How many bytes are read at once: most of what is looked for is in these."""

_MAGICS: Final = (
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"XFSB", "XFS"),
    (0, b"hsqs", "squashfs"),
    (3, b"NTFS    ", "NTFS"),
    (3, b"EXFAT   ", "exFAT"),
    (4086, b"SWAPSPACE2", "swap"),
    (4086, b"SWAP-SPACE", "swap"),
    (0x8001, b"CD001", "ISO 9660"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    # linux/magic.h; versions 1 and 2 with names of 14 and 30 bytes, and version 3.
    *((1040, magic.to_bytes(2, "little"), "minix") for magic in (0x137F, 0x138F, 0x2468, 0x2478)),
    (1048, b"\x5a\x4d", "minix"),
)
"""(offset, bytes, name)."""

_EXT_MAGIC: Final = struct.Struct("<1080xH34xIII")  # magic, compatible, incompatible, read-only features
# Linux, Documentation/filesystems/ext4/super.rst: what ext2 and ext3 know.
_HAS_JOURNAL: Final = 0x4
_EXT3_INCOMPATIBLE: Final = 0x2 | 0x4 | 0x8 | 0x10
_EXT3_READ_ONLY: Final = 0x1 | 0x2 | 0x4

# Microsoft, FAT: General Overview of On-Disk Format 1.03, "Boot Sector and BPB Structure": bytes per sector,
# sectors per cluster, reserved sectors, FATs, root entries, sectors, media, sectors of a FAT. Two numbers of
# 32 bits take the place of the sectors and the sectors of a FAT where these are 0.
_BPB: Final = struct.Struct("<11xHBHBHHBH8xII")
_FAT16_CLUSTERS: Final = 4085
_FAT32_CLUSTERS: Final = 65525


def file_system(read: Read, start: int, size: int) -> str:
    """What is in the `size` bytes from `start`: a name, or '' for anything else. Raises what `read` does."""
    head = read(start, min(size, _HEAD))
    for offset, magic, name in _MAGICS:
        end = offset + len(magic)
        if head[offset:end] == magic:
            return name
        if _HEAD < end <= size and read(start + offset, len(magic)) == magic:
            return name
    return _ext(head) or _fat(head)


def _ext(head: bytes) -> str:
    if len(head) < _EXT_MAGIC.size:
        return ""
    magic, compatible, incompatible, read_only = _EXT_MAGIC.unpack_from(head)
    if magic != 0xEF53:
        return ""
    if incompatible & ~_EXT3_INCOMPATIBLE or read_only & ~_EXT3_READ_ONLY:
        return "ext4"
    return "ext3" if compatible & _HAS_JOURNAL else "ext2"


def _fat(head: bytes) -> str:
    if head[510:512] != b"\x55\xaa":
        return ""
    size, per_cluster, reserved, fats, entries, few, media, fat_size, many, fat32_size = _BPB.unpack_from(
        head
    )
    if size not in (512, 1024, 2048, 4096) or per_cluster.bit_count() != 1 or media < 0xF0:
        return ""
    if not reserved or not 1 <= fats <= 4:
        return ""
    root = -(-entries * 32 // size)
    clusters = ((few or many) - reserved - fats * (fat_size or fat32_size) - root) // per_cluster
    if clusters <= 0:
        return ""
    if clusters < _FAT16_CLUSTERS:
        return "FAT12"
    return "FAT16" if clusters < _FAT32_CLUSTERS else "FAT32"
