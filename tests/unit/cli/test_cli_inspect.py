"""kvmbox inspect: what an image is, which way is taken, and why the others are not."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot.image import MAX_FILE_SIZE, GuestImage
from kvmbox.boot.inspection import LARGE, Inspection, inspect
from kvmbox.cli.main import run_command
from tests.support.boot_images import CODE, Piece, bzimage, elf, multiboot_header
from tests.support.disk_images import SECTOR, boot_entry, ext, iso, put, section, table, validation

MULTIBOOT = elf([Piece(data=multiboot_header() + CODE)], entry=0x10000C)


def found(data: bytes, boot: str = "auto") -> Inspection:
    memory = GuestMemory(2 * layout.MIB)
    result = inspect(GuestImage("kernel", data), memory, boot)
    assert memory.read(0, memory.size) == bytes(memory.size)
    return result


def way(result: Inspection, name: str) -> dict[str, object]:
    (one,) = (way for way in result.as_json()["ways"] if way["name"] == name)
    assert isinstance(one, dict)
    return one


def test_kernel_with_two_ways_shows_both_and_takes_the_first() -> None:
    result = found(MULTIBOOT)

    assert result.taken == "multiboot"
    assert way(result, "multiboot")["entry"] == way(result, "elf")["entry"] == 0x10000C
    assert way(result, "multiboot")["segments"] == [
        {"offset": 84, "file_size": 44, "address": 0x100000, "memory_size": 44}
    ]
    assert not way(result, "real")["possible"]


def test_way_that_recognises_a_kernel_and_cannot_boot_it_says_why() -> None:
    result = found(elf([Piece(data=multiboot_header(8) + CODE)], entry=0x10000C))

    assert result.taken == "multiboot"
    assert not way(result, "multiboot")["possible"]
    assert str(way(result, "multiboot")["reason"]).startswith("its Multiboot header demands")
    assert way(result, "elf")["possible"]


def test_image_that_nobody_knows_has_a_reason_and_no_way() -> None:
    result = found(b"text")

    assert result.taken == ""
    assert "no known kind" in result.reason
    assert not any(one.plan for one in result.ways)


def test_compressed_image_is_inspected_inside() -> None:
    result = found(gzip.compress(MULTIBOOT))

    assert (result.compression, result.decompressed_size) == ("gzip", len(MULTIBOOT))
    assert result.taken == "multiboot"


def test_flat_image_has_a_way_where_it_is_asked_for() -> None:
    assert way(found(CODE, "real"), "real")["entry"] == 0x7C00


def test_command_prints_ways_and_writes_the_same_as_data(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "kernel.elf"
    image.write_bytes(MULTIBOOT)

    assert run_command(["inspect", str(image), "--json", str(tmp_path / "out.json")]) == 0

    out, err = capfd.readouterr()
    assert " * multiboot   a Multiboot 1 kernel; entry 0x10000c\n" in out
    assert " + elf         an ELF file; entry 0x10000c\n" in out
    assert err == ""
    assert json.loads((tmp_path / "out.json").read_text())["taken"] == "multiboot"


def test_data_on_stdout_is_alone_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "kernel.elf"
    image.write_bytes(MULTIBOOT)
    monkeypatch.chdir(tmp_path)

    assert run_command(["inspect", str(image), "--json", "-"]) == 0

    out, err = capfd.readouterr()
    assert json.loads(out)["taken"] == "multiboot"
    assert " * multiboot   a Multiboot 1 kernel; entry 0x10000c\n" in err
    assert [file.name for file in tmp_path.iterdir()] == ["kernel.elf"]


def test_command_gives_4_for_what_does_not_boot_and_for_what_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "text"
    image.write_bytes(b"text")

    assert run_command(["inspect", str(image)]) == 4
    assert "no known kind" in capfd.readouterr().out
    assert run_command(["inspect", str(tmp_path / "nothing")]) == 4
    assert "no such file" in capfd.readouterr().err


# --- Disks -------------------------------------------------------------------------------------------------


def hybrid() -> bytes:
    """A CD that boots as a hard disk, too."""
    image = bytearray(iso(validation() + boot_entry() + section(0xEF, boot_entry())))
    put(image, 0, table((0x80, 0x17, 0, 12000)))
    return bytes(image)


def test_command_shows_partitions_and_their_file_systems(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = bytearray(1 << 20)
    put(image, 0, table((0x80, 0x83, 64, 100)))
    put(image, 64 * SECTOR, ext())
    (tmp_path / "disk.img").write_bytes(image)

    assert run_command(["inspect", str(tmp_path / "disk.img"), "--json", str(tmp_path / "out.json")]) == 0

    assert (
        "   MBR partitions\n       1  0x0000008000..0x0000014800 * Linux (ext2)\n" in capfd.readouterr().out
    )
    disk = json.loads((tmp_path / "out.json").read_text())["disk"]
    assert disk["cd"] is None
    assert disk["has_boot_sector"] is True
    assert disk["partitions"] == {
        "scheme": "MBR",
        "problem": "",
        "partitions": [
            {
                "number": 1,
                "kind": "Linux",
                "start": 64 * SECTOR,
                "size": 100 * SECTOR,
                "name": "",
                "active": True,
                "file_system": "ext2",
            }
        ],
    }


def test_command_names_a_hybrid_image_both_a_disk_and_a_cd(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "os.iso").write_bytes(hybrid())

    assert run_command(["inspect", str(tmp_path / "os.iso"), "--json", str(tmp_path / "out.json")]) == 0

    out = capfd.readouterr().out
    assert " * hidden NTFS (ISO 9660)\n" in out
    boot = "boots 4 sectors of 512 from 0xa000, no emulation; boot catalog also for EFI"
    assert f"   CD 'TEST'; {boot}\n" in out
    cd = json.loads((tmp_path / "out.json").read_text())["disk"]["cd"]
    assert cd["entry"] == {"kind": "no emulation", "segment": 0x7C0, "sectors": 4, "lba": 20}
    assert cd["sections"] == ["EFI"]


@pytest.mark.parametrize(
    ("head", "status", "words"),
    [
        (hybrid(), 0, "CD 'TEST'"),
        (iso(validation() + boot_entry()), 0, "CD 'TEST'"),
        (iso(), 4, "it does not boot: it has no El Torito boot record"),
        (ext(), 4, "file system ext2"),
        (b"", 4, "a BIOS finds nothing to boot on it"),
    ],
)
def test_large_disk_is_not_read_as_a_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], head: bytes, status: int, words: str
) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(head)
    # More than may be read of an image: who reads it as a whole refuses it.
    os.truncate(image, MAX_FILE_SIZE + 512)

    assert run_command(["inspect", str(image)]) == status

    assert words in capfd.readouterr().out


def test_large_kernel_is_inspected_as_a_kernel(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "kernel.elf"
    image.write_bytes(MULTIBOOT)
    os.truncate(image, LARGE + 512)

    assert run_command(["inspect", str(image)]) == 0

    assert "a Multiboot 1 kernel" in capfd.readouterr().out


def test_linux_kernel_is_no_disk_though_it_begins_with_a_boot_sector() -> None:
    assert found(bzimage()).disk is None
