"""Virtio devices on the command line: of Linux kernels, by whatever way they boot, and of nothing else."""

from __future__ import annotations

import pytest

from kvmbox.boot.image import GuestImage
from kvmbox.boot.linux.virtio_parameters import with_virtio
from tests.support.boot_images import PT_NOTE, Piece, bzimage, elf, elf_note, pvh_note

PLACES = ((0xD000_1000, 10), (0xD000_1200, 11))
TOLD = "virtio_mmio.device=512@0xd0001000:10 virtio_mmio.device=512@0xd0001200:11"


def line(data: bytes, way: str, given: str | None = "quiet") -> str | None:
    return with_virtio(GuestImage("/x/kernel", data), way, given, PLACES)


def test_bzimage_is_told_behind_what_was_given() -> None:
    assert line(bzimage(), "linux") == f"quiet {TOLD}"
    assert line(bzimage(), "linux", None) == TOLD


def test_elf_with_a_note_of_linux_is_told_whichever_way_it_boots() -> None:
    vmlinux = elf([Piece(), Piece(elf_note(b"Linux\0", 1, b"x"), type=PT_NOTE)])

    assert line(vmlinux, "linux") == f"quiet {TOLD}"
    assert line(vmlinux, "pvh") == f"quiet {TOLD}"


@pytest.mark.parametrize("way", ["pvh", "elf", "multiboot", "bios"])
def test_other_kernels_get_what_was_given(way: str) -> None:
    kernel = elf([Piece(), pvh_note(0x10_0000)])

    assert line(kernel, way) == "quiet"
    assert line(kernel, way, None) is None
