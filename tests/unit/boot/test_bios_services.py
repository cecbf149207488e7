"""The BIOS behind a Multiboot kernel: vectors and ROM in memory, and when they are not there."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kvmbox import layout
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image
from kvmbox.memory import GuestMemory
from tests.support.bios_rom import PRINT_SCREEN, STUB_SIZE, STUBS, TIMER, make_rom
from tests.support.boot_images import CODE, Piece, elf, multiboot_header


def boot(address: int = 0x100000, **options: Any) -> tuple[BootPlan, GuestMemory]:
    data = elf([Piece(data=multiboot_header() + CODE, virtual=address)], entry=address + 12)
    memory = GuestMemory(2 * layout.MIB)
    chosen = BootOptions(**({"bios_rom": make_rom()} | options))
    return load_image(GuestImage("kernel", data), memory, chosen), memory


def vector(memory: GuestMemory, number: int) -> tuple[int, int]:
    offset, segment = struct.unpack("<HH", memory.read(4 * number, 4))
    return segment, offset


def test_multiboot_kernel_finds_vectors_and_rom() -> None:
    plan, memory = boot()

    assert plan.after_bios
    assert vector(memory, 8) == (0xF000, TIMER)
    assert vector(memory, 5) == (0xF000, PRINT_SCREEN)
    assert vector(memory, 0x10) == (0xF000, STUBS + 0x10 * STUB_SIZE)
    assert vector(memory, 0xFF) == (0xF000, STUBS + 0xFF * STUB_SIZE)
    assert memory.read(layout.BIOS_ROM, 11) == b"kvmbox BIOS"


@pytest.mark.parametrize(
    ("address", "options"), [(0x100000, {"bios_rom": b""}), (0x100000, {"firmware_tables": False})]
)
def test_kernel_without_a_bios_finds_an_empty_vector_table(address: int, options: dict[str, Any]) -> None:
    plan, memory = boot(address, **options)

    assert not plan.after_bios
    assert memory.read(0, 0x400) == bytes(0x400)


@pytest.mark.parametrize(("address", "there"), [(0x3C0, False), (0x500, True), (layout.BIOS_ROM, False)])
def test_kernel_has_the_precedence_over_the_bios(address: int, there: bool) -> None:
    plan, memory = boot(address)

    assert plan.after_bios == there
    assert memory.read(address, 12) == multiboot_header()


def test_elf_kernel_has_no_bios() -> None:
    memory = GuestMemory(2 * layout.MIB)
    plan = load_image(GuestImage("kernel", elf()), memory, BootOptions(bios_rom=make_rom()))

    assert not plan.after_bios
    assert memory.read(0, 0x400) == bytes(0x400)
