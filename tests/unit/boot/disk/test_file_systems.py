"""File systems by name."""

from __future__ import annotations

import pytest

from kvmbox.boot.disk.file_systems import file_system
from tests.support.disk_images import ext, fat, iso, reader


def name_of(image: bytes, start: int = 0) -> str:
    return file_system(reader(image), start, len(image) - start)


@pytest.mark.parametrize(
    ("offset", "magic", "name"),
    [
        (0, b"LUKS\xba\xbe", "LUKS"),
        (0, b"XFSB", "XFS"),
        (0, b"hsqs", "squashfs"),
        (3, b"NTFS    ", "NTFS"),
        (3, b"EXFAT   ", "exFAT"),
        (1040, b"\x7f\x13", "minix"),
        (1040, b"\x78\x24", "minix"),
        (1048, b"\x5a\x4d", "minix"),
        (4086, b"SWAPSPACE2", "swap"),
        (0x10040, b"_BHRfS_M", "btrfs"),
    ],
)
def test_magic_number_is_a_name(offset: int, magic: bytes, name: str) -> None:
    image = bytes(offset) + magic + bytes(5000)
    assert name_of(image) == name
    assert name_of(bytes(100) + image, 100) == name
    assert name_of(image[: offset + len(magic) - 1]) == ""


@pytest.mark.parametrize(
    ("features", "name"),
    [
        ({}, "ext2"),
        ({"compatible": 4}, "ext3"),
        ({"compatible": 4, "incompatible": 6}, "ext3"),
        ({"compatible": 4, "incompatible": 0x42}, "ext4"),
        ({"read_only": 9}, "ext4"),
    ],
)
def test_features_tell_ext2_ext3_and_ext4_apart(features: dict[str, int], name: str) -> None:
    assert name_of(ext(**features)) == name


@pytest.mark.parametrize(
    ("clusters", "name"),
    [(1, "FAT12"), (4084, "FAT12"), (4085, "FAT16"), (65524, "FAT16"), (65525, "FAT32"), (1 << 20, "FAT32")],
)
def test_number_of_clusters_tells_fats_apart(clusters: int, name: str) -> None:
    assert name_of(fat(clusters)) == name


def spoiled(offset: int, *values: int) -> bytes:
    boot = bytearray(fat(100))
    boot[offset : offset + len(values)] = bytes(values)
    return bytes(boot)


@pytest.mark.parametrize(
    "boot",
    [
        spoiled(510, 0),
        spoiled(11, 0, 0),
        spoiled(11, 1, 2),
        spoiled(13, 0),
        spoiled(13, 3),
        spoiled(14, 0, 0),
        spoiled(16, 0),
        spoiled(16, 5),
        spoiled(21, 0x12),
        spoiled(22, 0xFF, 0xFF),
    ],
)
def test_boot_sector_without_a_sound_fat_is_none(boot: bytes) -> None:
    assert name_of(boot) == ""


def test_cd_is_an_iso_9660_file_system() -> None:
    assert name_of(iso()) == "ISO 9660"


@pytest.mark.parametrize("size", [0, 1, 511, 512, 4096])
def test_zeros_are_nothing(size: int) -> None:
    assert name_of(bytes(size)) == ""
