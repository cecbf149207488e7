"""Partition tables: what is listed, and what is said of tables that lie."""

from __future__ import annotations

import pytest

from kvmbox.boot.disk.partitions import GPT, MBR, Partition, PartitionTable, read_partitions
from tests.support.disk_images import (
    SECTOR,
    ext,
    fat,
    gpt,
    gpt_entry,
    gpt_header,
    put,
    reader,
    table,
)

SIZE = 2048 * SECTOR


def disk(*pieces: tuple[int, bytes]) -> bytes:
    image = bytearray(SIZE)
    for sector, data in pieces:
        put(image, sector * SECTOR, data)
    return bytes(image)


def read(image: bytes) -> PartitionTable:
    found = read_partitions(reader(image), len(image))
    assert found is not None
    return found


def places(found: PartitionTable) -> list[tuple[int, int, int]]:
    return [(one.number, one.start // SECTOR, one.size // SECTOR) for one in found.partitions]


def test_mbr_lists_its_records_with_their_file_systems() -> None:
    found = read(disk((0, table((0x80, 0x83, 64, 100), (0, 0x0C, 200, 99))), (64, ext()), (200, fat(2000))))
    assert found == PartitionTable(
        MBR,
        (
            Partition(1, "Linux", 64 * SECTOR, 100 * SECTOR, active=True, file_system="ext2"),
            Partition(2, "FAT32", 200 * SECTOR, 99 * SECTOR, file_system="FAT12"),
        ),
    )


def test_unknown_type_is_a_number_and_unused_records_keep_theirs() -> None:
    found = read(disk((0, table((0, 0, 0, 0), (0, 0xDA, 1, 2)))))
    assert [(one.number, one.kind) for one in found.partitions] == [(2, "type 0xda")]


@pytest.mark.parametrize(
    "sector",
    [
        bytes(SECTOR),
        table(),
        table((0x80, 0x83, 1, 1))[:510] + b"\0\0",
        table((0x80, 0x83, 1, 1), (0x41, 0x83, 1, 1)),
        table((0x80, 0x83, 1, 1), (0, 0, 1, 1)),
        table((0x80, 0x83, 1, 0)),
    ],
    ids=["zeros", "empty", "no signature", "bad status", "no type", "no sectors"],
)
def test_sector_without_a_table_has_none(sector: bytes) -> None:
    assert read_partitions(reader(disk((0, sector))), SIZE) is None


def test_logical_partitions_are_numbered_from_5() -> None:
    found = read(
        disk(
            (0, table((0, 0x05, 100, 900), (0, 0x83, 1000, 10))),
            (100, table((0, 0x83, 1, 9), (0, 0x05, 50, 60))),
            (150, table((0, 0x82, 2, 8), (0, 0x05, 200, 60))),
            (300, table((0, 0x83, 3, 7))),
        )
    )
    assert found.problem == ""
    assert places(found) == [(1, 100, 900), (2, 1000, 10), (5, 101, 9), (6, 152, 8), (7, 303, 7)]


def test_chain_of_logical_partitions_that_runs_in_a_circle_ends() -> None:
    found = read(
        disk(
            (0, table((0, 0x0F, 100, 900))),
            (100, table((0, 0x83, 1, 9), (0, 0x05, 50, 60))),
            (150, table((0, 0x83, 1, 9), (0, 0x05, 0, 60))),
        )
    )
    assert "circle" in found.problem
    assert places(found) == [(1, 100, 900), (5, 101, 9), (6, 151, 9)]


def test_chain_without_end_is_followed_for_a_while() -> None:
    def endless(offset: int, size: int) -> bytes:
        following = offset // SECTOR + 1 & 0xFFFF_FFFF
        return table((0, 0x83, 1, 1), (0, 0x05, following, 1))[:size]

    found = read_partitions(endless, 1 << 50)
    assert found is not None
    assert "more than 128" in found.problem
    assert len(found.partitions) < 140


def test_partition_beyond_the_disk_is_listed_and_told() -> None:
    found = read(
        disk((0, table((0, 0x83, 2000, 48), (0, 0x83, 2000, 49), (0, 0x83, 0xFFFF_FFFF, 0xFFFF_FFFF))))
    )
    assert found.problem == "partitions 2, 3 are not all within the disk"
    assert len(found.partitions) == 3


def test_file_system_behind_a_partition_is_not_taken_for_its_own() -> None:
    swap = bytes(4086) + b"SWAPSPACE2"
    assert read(disk((0, table((0, 0x82, 8, 8))), (8, swap))).partitions[0].file_system == "swap"
    assert read(disk((0, table((0, 0x82, 8, 7))), (8, swap))).partitions[0].file_system == ""


# --- GPT ---------------------------------------------------------------------------------------------------


def test_gpt_lists_used_entries_with_types_and_names() -> None:
    image = gpt([gpt_entry(34, 99, "root \u00e9"), bytes(128), gpt_entry(100, 199, kind=b"\x01\x02" * 8)])
    found = read(image)
    assert (found.scheme, found.problem) == (GPT, "")
    assert [(one.number, one.kind, one.name) for one in found.partitions] == [
        (1, "Linux", "root \u00e9"),
        (3, "02010201-0201-0201-0102-010201020102", ""),
    ]
    assert places(found) == [(1, 34, 66), (3, 100, 100)]


def spoiled(image: bytes, offset: int, data: bytes) -> bytes:
    return image[:offset] + data + image[offset + len(data) :]


GOOD = gpt([gpt_entry(34, 99)])


@pytest.mark.parametrize(
    ("offset", "data", "words"),
    [
        (SECTOR + 56, b"x", "the CRC of its header is wrong"),
        (SECTOR + 16, b"\0\0\0\0", "the CRC of its header is wrong"),
        (SECTOR + 12, b"\x5b\0\0\0", "91 bytes"),
        (SECTOR + 12, b"\xff\xff\xff\xff", "4294967295 bytes"),
        (2 * SECTOR + 40, b"x", "the CRC of its entries is wrong"),
    ],
)
def test_damaged_gpt_is_told_and_its_copy_is_used(offset: int, data: bytes, words: str) -> None:
    found = read(spoiled(GOOD, offset, data))
    assert found.problem.endswith(f"{words}; its copy is right")
    assert places(found) == [(1, 34, 66)]


def test_gpt_that_is_damaged_twice_has_no_partitions() -> None:
    broken = spoiled(spoiled(GOOD, SECTOR + 56, b"x"), len(GOOD) - SECTOR + 56, b"x")
    assert read(broken) == PartitionTable(GPT, (), "the CRC of its header is wrong")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (gpt_header(bytes(128), own=7), "sector 7"),
        (gpt_header(bytes(1025 * 128)), "1025 entries"),
        (gpt_header(bytes(128), width=64), "entries of 64 bytes"),
        (gpt_header(bytes(8192), width=4096), "entries of 4096 bytes"),
        (gpt_header(bytes(128), array=1 << 60), "CRC of its entries"),
    ],
)
def test_gpt_with_a_right_crc_and_other_lies_is_refused(header: bytes, words: str) -> None:
    found = read(disk((1, header)))
    assert words in found.problem
    assert found.partitions == ()


def test_entry_that_ends_before_it_begins_is_left_out() -> None:
    assert read(gpt([gpt_entry(99, 98), gpt_entry(40, 40)])).partitions[0].number == 2
