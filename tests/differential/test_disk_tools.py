"""What the tools of Linux make of disks, and what kvmbox finds on them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from kvmbox.boot.disk.cd_image import HARD_DISK, NO_EMULATION, BootEntry, read_iso
from kvmbox.boot.disk.file_systems import file_system
from kvmbox.boot.disk.partitions import GPT, MBR, read_partitions

pytestmark = pytest.mark.thorough

PATH: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MIB: Final = 1 << 20


def tool(name: str) -> str:
    """The path of a program, without which the test is skipped."""
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"no {name} here")
    return found


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A sparse file, large enough for each file system."""
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, 512 * MIB)
    return path


def reader(path: Path) -> Callable[[int, int], bytes]:
    def read(offset: int, size: int) -> bytes:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    return read


def make(program: str, *arguments: str | Path, text: str = "") -> None:
    command = [tool(program), *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, input=text.encode())


@pytest.mark.parametrize(
    ("program", "arguments", "name"),
    [
        ("mkfs.ext2", ["-q"], "ext2"),
        ("mkfs.ext3", ["-q"], "ext3"),
        ("mkfs.ext4", ["-q"], "ext4"),
        ("mkfs.minix", [], "minix"),
        ("mkfs.minix", ["-3"], "minix"),
        ("mkswap", [], "swap"),
        ("mkfs.vfat", ["-F", "12", "-s", "128"], "FAT12"),
        ("mkfs.vfat", ["-F", "16"], "FAT16"),
        ("mkfs.vfat", ["-F", "32"], "FAT32"),
        ("mkfs.xfs", ["-q"], "XFS"),
        ("mkfs.btrfs", ["-q"], "btrfs"),
        ("mkfs.ntfs", ["-q", "-Q", "-F"], "NTFS"),
    ],
)
def test_file_system_is_named(image: Path, program: str, arguments: list[str], name: str) -> None:
    if name == "FAT12":
        os.truncate(image, 128 * MIB)
    make(program, *arguments, image)
    assert file_system(reader(image), 0, image.stat().st_size) == name


@pytest.mark.parametrize("scheme", [MBR, GPT])
def test_partitions_of_sfdisk_are_listed(image: Path, scheme: str) -> None:
    last = "type=E\nsize=3MiB\nsize=5MiB" if scheme == MBR else "size=3MiB, name=third"
    text = f"label: {'dos' if scheme == MBR else 'gpt'}\nsize=10MiB, bootable\nsize=20MiB, type=S\n{last}\n"
    make("sfdisk", image, text=text)

    found = read_partitions(reader(image), image.stat().st_size)

    assert found is not None
    assert (found.scheme, found.problem) == (scheme, "")
    kinds = [(one.number, one.kind, one.size // MIB) for one in found.partitions]
    assert kinds[:2] == [(1, "Linux", 10), (2, "Linux swap", 20)]
    if scheme == MBR:
        assert [one.number for one in found.partitions] == [1, 2, 3, 5, 6]
        assert kinds[3:] == [(5, "Linux", 3), (6, "Linux", 5)]
    else:
        assert found.partitions[2].name == "third"


@pytest.mark.parametrize("emulation", [NO_EMULATION, HARD_DISK])
def test_cd_of_xorriso_boots(tmp_path: Path, emulation: str) -> None:
    tree, image = tmp_path / "tree", tmp_path / "os.iso"
    tree.mkdir()
    boot = bytearray(4 * MIB)
    boot[446:462] = bytes.fromhex("80 01 01 00 83 fe 3f 00 3f 00 00 00 82 1f 00 00")
    boot[510:512] = b"\x55\xaa"
    (tree / "boot.img").write_bytes(boot)
    (tree / "efi.img").write_bytes(bytes(MIB))
    how = ["-no-emul-boot", "-boot-load-size", "4"] if emulation == NO_EMULATION else ["-hard-disk-boot"]
    efi = ["-eltorito-alt-boot", "-e", "efi.img", "-no-emul-boot"]
    make("xorrisofs", "-V", "MY_OS", "-b", "boot.img", "-c", "boot.cat", *how, *efi, "-o", image, tree)

    found = read_iso(reader(image), image.stat().st_size)

    assert found is not None
    assert (found.volume, found.sections, found.problem) == ("MY_OS", ("EFI",), "")
    assert found.entry is not None
    assert found.entry == BootEntry(emulation, 0x7C0, found.entry.sectors, found.entry.lba)
    assert image.read_bytes()[found.entry.lba * 2048 :][: 4 * MIB] == boot
