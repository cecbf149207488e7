"""The built-in BIOS beside a Multiboot kernel: only where it is asked for, and clear of the image."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmbox import bundled, layout
from kvmbox.boot import BootOptions, GuestImage, load_image
from kvmbox.errors import ImageError
from kvmbox.firmware.builtin_bios import trap_vectors
from kvmbox.memory import GuestMemory
from tests.support.boot_images import CODE, Piece, elf, multiboot2_header, multiboot_header

ROM = Path(bundled.DIRECTORY, "bios.bin").read_bytes()
SIZE = 4 * layout.MIB
HEADERS = {"multiboot": multiboot_header(), "multiboot2": bytes(4) + multiboot2_header()}


def load(way: str, bios: str | None, at: int = 0x100000) -> GuestMemory:
    memory = GuestMemory(SIZE)
    data = elf([Piece(data=HEADERS[way] + CODE, virtual=at)], entry=at)
    options = BootOptions(boot=way, bios=bios, bios_rom=ROM)
    load_image(GuestImage("kernel", data), memory, options)
    return memory


@pytest.mark.parametrize("way", HEADERS)
def test_bios_is_there_where_it_is_asked_for(way: str) -> None:
    memory = load(way, "builtin")

    assert memory.read(0, 0x400) == trap_vectors(ROM)
    assert memory.read(layout.BIOS_ROM, 12) == b"kvmbox BIOS\0"


@pytest.mark.parametrize("way", HEADERS)
@pytest.mark.parametrize("bios", [None, "none"])
def test_no_bios_is_there_without_being_asked_for(way: str, bios: str | None) -> None:
    memory = load(way, bios)

    assert memory.read(0, 0x400) == bytes(0x400)
    assert memory.read(layout.BIOS_ROM, 12) == bytes(12)


@pytest.mark.parametrize("way", HEADERS)
@pytest.mark.parametrize("at", [0x100, layout.BIOS_ROM])
def test_kernel_in_the_place_of_the_bios_is_refused(way: str, at: int) -> None:
    with pytest.raises(ImageError, match="where firmware data are"):
        load(way, "builtin", at)
