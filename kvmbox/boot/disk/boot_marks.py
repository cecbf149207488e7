"""What marks a file as a disk to boot from. Pure.

The one rule where an image has such a mark and a Multiboot header as well: boot loaders carry the header in
the sectors behind the boot sector (GRUB's core.img), and disks carry kernels. So the mark decides. The first
32 KiB of a CD are free for anything. An ELF file is no disk, whatever its byte 510.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import Offer, Refusal

BOOT_SIGNATURE: Final = "boot signature (55 AA at byte 510)"
PARTITION_TABLE: Final = "partition table"
CD_VOLUME: Final = "volume descriptor of a CD"

_SIGNATURE: Final = b"\x55\xaa"
_SIGNATURE_OFFSET: Final = 510
# UEFI Specification 2.10, 5.2.1 (the partition record of an MBR) and 5.3.2 (the header of a GPT).
_TABLE_OFFSET: Final = 446
_ENTRY: Final = struct.Struct("<B3xB3xII")  # status, type, first sector, number of sectors
_ENTRIES: Final = 4
_STATUSES: Final = (0x00, 0x80)
_GPT: Final = b"EFI PART"
# ECMA-119, 8.1: the first volume descriptor is in sector 16 of 2048 bytes.
_VOLUME: Final = b"CD001"
_VOLUME_OFFSET: Final = 0x8001
_HEADER: Final = 0x202  # of a Linux kernel, which has a boot signature as well (boot.rst)


def disk_mark(data: bytes) -> str:
    """What marks `data` as a disk; empty if nothing does."""
    if data[_SIGNATURE_OFFSET : _SIGNATURE_OFFSET + 2] == _SIGNATURE:
        return BOOT_SIGNATURE
    if data[SECTOR_SIZE : SECTOR_SIZE + len(_GPT)] == _GPT or _has_partitions(data):
        return PARTITION_TABLE
    return CD_VOLUME if is_cd(data) else ""


def is_cd(data: bytes) -> bool:
    """Whether `data` is a CD image (ISO 9660). It may be a disk as well."""
    return data[_VOLUME_OFFSET : _VOLUME_OFFSET + len(_VOLUME)] == _VOLUME


def is_disk(data: bytes) -> bool:
    """Whether it can only be a disk or a CD, and no kernel that has the mark of one."""
    is_kernel = data.startswith(ELF_MAGIC) or (data[_HEADER : _HEADER + 4] == b"HdrS" and not is_cd(data))
    return bool(disk_mark(data)) and not is_kernel


def offer_of_header(image: GuestImage, kind: str, unloadable: Refusal | None) -> Offer | Refusal:
    """What an image with a Multiboot header is to the way of this header: `kind`, if it is no disk.

    `unloadable` refuses what is no ELF file, where the header does not say where the file goes.
    """
    if image.data.startswith(ELF_MAGIC):
        return Offer(kind)
    mark = disk_mark(image.data)
    if unloadable is not None:
        return Refusal(unloadable.reason, unloadable.hint, "" if mark else kind)
    return Offer(kind, f"it has a {mark}" if mark else "")


def _has_partitions(data: bytes) -> bool:
    """Whether there is an MBR's table: each entry is empty, or a partition that lies within `data`."""
    if len(data) <= SECTOR_SIZE:
        return False
    used = False
    for index in range(_ENTRIES):
        start = _TABLE_OFFSET + index * _ENTRY.size
        if not any(data[start : start + _ENTRY.size]):
            continue
        status, kind, first, count = _ENTRY.unpack_from(data, start)
        if status not in _STATUSES or not kind or not first or not count:
            return False
        if (first + count) * SECTOR_SIZE > len(data):
            return False
        used = True
    return used
