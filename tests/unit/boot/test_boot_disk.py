"""Boot disks and Multiboot headers in one file: which of the two counts, and what is said of the other."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, GuestImage, load_image
from kvmbox.boot.choose import choose
from kvmbox.boot.disk.boot_marks import disk_mark
from kvmbox.boot.inspection import inspect
from kvmbox.cli.main import run_command
from tests.support.boot_images import (
    CODE,
    Piece,
    bzimage,
    elf,
    multiboot2_header,
    multiboot2_tag,
    multiboot_header,
)

AT = 0x100000
SIGNATURE = b"\x55\xaa"
PLAIN = {"multiboot": multiboot_header(), "multiboot2": multiboot2_header()}
"""Headers that do not say where the file goes."""
PLACED = {
    "multiboot": multiboot_header(0, (AT, AT, 0, 0, AT)),
    "multiboot2": multiboot2_header(
        multiboot2_tag(2, struct.pack("<4I", AT, AT, 0, 0)), multiboot2_tag(3, struct.pack("<I", AT))
    ),
}
"""Headers that do."""
PARTITION = struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 1, 2)

both = pytest.mark.parametrize("way", ["multiboot", "multiboot2"])


def file(header: bytes, table: bytes = b"", signature: bytes = b"") -> bytes:
    """A first sector with a partition table and a signature, and a header in the sector behind."""
    sector = bytes(446) + table.ljust(64, b"\0") + signature.ljust(2, b"\0")
    return sector + (header + CODE).ljust(1024, b"\0")


def load(data: bytes, boot: str = "auto") -> str:
    return load_image(GuestImage("guest", data), GuestMemory(2 * layout.MIB), BootOptions(boot=boot)).format


@both
@pytest.mark.parametrize("table", [b"", PARTITION], ids=["no table", "table"])
def test_disk_whose_boot_loader_has_a_header_boots_as_a_disk_and_can_be_booted_by_it(
    way: str, table: bytes
) -> None:
    disk = file(PLACED[way], table, SIGNATURE)

    choice = choose(GuestImage("disk", disk))

    assert choice.way.name == "bios"
    assert f"--boot {way}" in choice.hint
    assert load(disk, way) == way


@both
def test_disk_that_holds_an_elf_kernel_boots_as_a_disk_and_has_no_other_way(way: str) -> None:
    disk = file(elf([Piece(data=PLAIN[way] + CODE)], bits=64).ljust(1024, b"\0"), signature=SIGNATURE)

    choice = choose(GuestImage("disk", disk))

    assert (choice.way.name, choice.hint) == ("bios", "")


@both
def test_header_with_addresses_in_a_file_that_is_no_disk_counts(way: str) -> None:
    assert load(file(PLACED[way])) == way


@both
def test_header_without_addresses_in_a_file_that_is_neither_elf_nor_disk_is_refused_with_the_reason(
    way: str,
) -> None:
    with pytest.raises(ImageError, match="address") as caught:
        load(file(PLAIN[way]))

    assert f"it is a Multiboot {2 if way == 'multiboot2' else 1} kernel" in str(caught.value)
    assert "build it as ELF" in str(caught.value.hint)


@both
def test_header_in_a_partitioned_file_without_a_signature_has_to_be_asked_for(way: str) -> None:
    disk = file(PLACED[way], PARTITION)

    with pytest.raises(ImageError, match="it has a partition table") as caught:
        load(disk)

    assert f"--boot {way}" in str(caught.value.hint)
    assert load(disk, way) == way


@both
def test_elf_file_with_the_bytes_of_a_signature_is_no_disk(way: str) -> None:
    data = bytearray(elf([Piece(data=(PLAIN[way] + CODE).ljust(1024, b"\0"))], bits=64))
    data[510:512] = SIGNATURE

    assert load(bytes(data)) == way


def test_linux_kernel_with_a_multiboot_header_boots_as_linux() -> None:
    data = bytearray(bzimage())
    data[: len(PLACED["multiboot"])] = PLACED["multiboot"]

    choice = choose(GuestImage("bzImage", bytes(data)))

    assert choice.way.name == "linux"
    assert "--boot multiboot" in choice.hint


def test_guid_partition_table_marks_a_disk() -> None:
    assert disk_mark(bytes(512) + b"EFI PART" + bytes(1024)) == "partition table"


@pytest.mark.parametrize(
    "table",
    [
        b"",
        struct.pack("<B3sB3sII", 0x7F, b"", 0x83, b"", 1, 2),
        struct.pack("<B3sB3sII", 0x80, b"", 0, b"", 1, 2),
        struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 0, 2),
        struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 1, 0),
        struct.pack("<B3sB3sII", 0x80, b"", 0x83, b"", 1, 3),
        PARTITION + struct.pack("<B3sB3sII", 1, b"", 0x83, b"", 1, 2),
    ],
    ids=["empty", "status", "no type", "at 0", "no size", "too large", "second"],
)
def test_bytes_that_are_no_partitions_within_the_file_mark_no_disk(table: bytes) -> None:
    assert disk_mark(file(b"", table)) == ""


def test_inspection_says_why_a_way_has_to_be_asked_for() -> None:
    disk = file(PLACED["multiboot"], signature=SIGNATURE)

    result = inspect(GuestImage("disk", disk), GuestMemory(2 * layout.MIB))

    (way,) = (one for one in result.as_json()["ways"] if one["name"] == "multiboot")
    assert result.taken == "bios"
    assert way["possible"]
    assert way["reason"] == "it has a boot signature (55 AA at byte 510)"


def test_command_shows_a_way_that_has_to_be_asked_for_with_the_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(file(PLACED["multiboot"], signature=SIGNATURE))

    assert run_command(["inspect", str(image)]) == 0

    out = capfd.readouterr().out
    assert (
        " + multiboot   a Multiboot 1 kernel; entry 0x100000; not taken unasked:"
        " it has a boot signature (55 AA at byte 510)\n"
    ) in out
    assert " * bios        a boot sector; entry 0x7c00\n" in out
