"""Disk images for tests: CDs with a boot catalog, partition tables, magic numbers of file systems."""

from __future__ import annotations

import struct
from binascii import crc32
from collections.abc import Sequence
from typing import Final

from kvmbox.boot.disk.cd_image import Read

CD_SECTOR: Final = 2048
SECTOR: Final = 512
CATALOG_AT: Final = 18
IMAGE_AT: Final = 20
GPT_ENTRY: Final = 128
LINUX_DATA: Final = bytes.fromhex("af3dc60f838472478e793d69d8477de4")
"""0FC63DAF-8483-4772-8E79-3D69D8477DE4, as it stands in an entry."""


def reader(data: bytes) -> Read:
    """Reads of an image in memory."""
    return lambda offset, size: data[offset : offset + size]


def put(image: bytearray, offset: int, data: bytes) -> None:
    """Write into an image that is large enough."""
    assert offset + len(data) <= len(image)
    image[offset : offset + len(data)] = data


def validation(platform: int = 0, *, checksum: int = 0) -> bytes:
    """The first entry of a boot catalog; `checksum` is added to the right one."""
    entry = struct.pack("<BB2x24sH2s", 1, platform, b"test", 0, b"\x55\xaa")
    words = sum(struct.unpack("<16H", entry))
    return struct.pack("<BB2x24sH2s", 1, platform, b"test", (checksum - words) & 0xFFFF, b"\x55\xaa")


def boot_entry(
    media: int = 0, segment: int = 0, sectors: int = 4, lba: int = IMAGE_AT, indicator: int = 0x88
) -> bytes:
    """An entry of a boot catalog."""
    return struct.pack("<BBHBxHI", indicator, media, segment, 0, sectors, lba).ljust(32, b"\0")


def section(platform: int, *entries: bytes, last: bool = True) -> bytes:
    """A section of a boot catalog."""
    return struct.pack("<BBH28s", 0x91 if last else 0x90, platform, len(entries), b"") + b"".join(entries)


def iso(catalog: bytes | None = None, *, volume: bytes = b"TEST", sectors: int = 3000) -> bytes:
    """A CD with a boot catalog, or without one."""
    image = bytearray(sectors * CD_SECTOR)
    primary = b"\1CD001\1".ljust(40, b"\0") + volume.ljust(32)
    descriptors = [primary, b"\xffCD001\1"]
    if catalog is not None:
        record = b"\0CD001\1" + b"EL TORITO SPECIFICATION".ljust(32, b"\0")
        descriptors.insert(1, record.ljust(0x47, b"\0") + struct.pack("<I", CATALOG_AT + 1))
        put(image, (CATALOG_AT + 1) * CD_SECTOR, catalog)
    for number, descriptor in enumerate(descriptors, 16):
        put(image, number * CD_SECTOR, descriptor)
    return bytes(image)


def table(*records: tuple[int, int, int, int]) -> bytes:
    """A sector with a partition table: (status, type, first sector, sectors) of each record."""
    packed = b"".join(struct.pack("<B3xB3xII", *record) for record in records)
    return bytes(446) + packed.ljust(64, b"\0") + b"\x55\xaa"


def gpt_entry(first: int, last: int, name: str = "", kind: bytes = LINUX_DATA) -> bytes:
    """An entry of a GPT."""
    return struct.pack("<16s16sQQQ72s", kind, b"u" * 16, first, last, 0, name.encode("utf-16-le"))


def gpt_header(entries: bytes, *, own: int = 1, array: int = 2, width: int = GPT_ENTRY) -> bytes:
    """The header of a GPT whose entries begin at sector `array`."""
    fields = (0, own, 0, 34, 1000, b"d" * 16, array, len(entries) // width, width, crc32(entries))
    raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, *fields)
    return raw[:16] + struct.pack("<I", crc32(raw)) + raw[20:]


def gpt(entries: Sequence[bytes], *, sectors: int = 2048) -> bytes:
    """A disk with a GPT at its beginning, a copy at its end, and a protective MBR."""
    image = bytearray(sectors * SECTOR)
    array = b"".join(entries).ljust(4 * GPT_ENTRY, b"\0")
    put(image, 0, table((0, 0xEE, 1, sectors - 1)))
    put(image, SECTOR, gpt_header(array))
    put(image, 2 * SECTOR, array)
    put(image, (sectors - 1) * SECTOR, gpt_header(array, own=sectors - 1, array=sectors - 2))
    put(image, (sectors - 2) * SECTOR, array)
    return bytes(image)


def fat(clusters: int) -> bytes:
    """The boot sector of a FAT file system with this many clusters of one sector."""
    sectors = 1 + 2 * 9 + 14 + clusters
    few, many = (sectors, 0) if sectors < 0x10000 else (0, sectors)
    boot = struct.pack(
        "<3s8sHBHBHHBH8xII", b"\xeb\x3c\x90", b"TEST", 512, 1, 1, 2, 224, few, 0xF0, 9, many, 0
    )
    return boot.ljust(510, b"\0") + b"\x55\xaa"


def ext(*, compatible: int = 0, incompatible: int = 2, read_only: int = 1) -> bytes:
    """The beginning of an ext2, ext3 or ext4 file system with these features."""
    image = bytearray(4096)
    put(image, 1024 + 56, struct.pack("<H", 0xEF53))
    put(image, 1024 + 92, struct.pack("<III", compatible, incompatible, read_only))
    return bytes(image)
