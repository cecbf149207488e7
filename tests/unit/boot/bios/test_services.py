"""The BIOS behind a Multiboot kernel: vectors and ROM in memory, and when they are not there."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image
from tests.support.bios_rom import PRINT_SCREEN, STUB_SIZE, STUBS, TIMER, make_rom
from tests.support.boot_images import CODE, PT_NOTE, Piece, elf, multiboot_header


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


@pytest.mark.parametrize(
    ("address", "place"), [(0x3C0, "0x0..0x400"), (0x500, ""), (layout.BIOS_ROM, "0xf4000..0x100000")]
)
def test_kernel_has_the_precedence_over_the_bios(address: int, place: str) -> None:
    plan, memory = boot(address)

    assert plan.after_bios == (not place)
    assert place in plan.without_bios
    assert plan.without_bios.startswith(f"the guest has no BIOS: segment 0 ({address:#x}..") == bool(place)
    assert memory.read(address, 12) == multiboot_header()


def boot_with_headers(
    *, before: int = 0x1000, low: bytes = b"", size: int = 0, memory_size: int | None = None, **options: Any
) -> tuple[BootPlan, GuestMemory]:
    """An ELF kernel with its text at 1 MiB. A segment from `before` that on has the headers, then `low`."""
    text = multiboot_header() + CODE
    gap = bytes(0x1000 - 0x34 - 2 * 0x20 - len(low))
    pieces = [
        Piece(low + gap, layout.MIB - before, offset=0, file_size=size or 0x74, memory_size=memory_size),
        Piece(text, offset=0x1000),
    ]
    if size > 0x1000:
        pieces[1].type = PT_NOTE
    memory = GuestMemory(2 * layout.MIB)
    chosen = BootOptions(**({"bios_rom": make_rom()} | options))
    return load_image(GuestImage("kernel", elf(pieces, entry=layout.MIB + 12)), memory, chosen), memory


@pytest.mark.parametrize("size", [0x74, 0x1000, 0x1020])
def test_rom_stands_in_the_place_of_headers_before_the_text(size: int) -> None:
    plan, memory = boot_with_headers(size=size)

    assert plan.after_bios
    assert plan.without_bios == ""
    rom = make_rom()
    assert memory.read(layout.MIB - 0x1000, 0x1000) == rom[-0x1000:]
    assert memory.read(layout.MIB, 12) == multiboot_header()


@pytest.mark.parametrize(
    "what",
    [
        {"low": b"\1", "size": 0x75},
        {"low": bytes(0xF00) + b"\1", "size": 0x1020},
        {"size": 0x74, "memory_size": 0x80},
        {"before": 0xC080},
    ],
    ids=["code behind them", "code far behind them", "variables behind them", "before the ROM"],
)
def test_rom_stands_in_the_place_of_nothing_but_headers(what: dict[str, Any]) -> None:
    if what.get("before"):
        what = what | {"size": 0x100}
    plan, memory = boot_with_headers(**what)

    assert not plan.after_bios
    assert "segment 0 " in plan.without_bios
    assert memory.read(plan.segments[0].address, 4) == b"\x7fELF"
    assert boot_with_headers(**what, bios_rom=b"")[0].without_bios == ""


def test_elf_kernel_has_no_bios() -> None:
    memory = GuestMemory(2 * layout.MIB)
    plan = load_image(GuestImage("kernel", elf()), memory, BootOptions(bios_rom=make_rom()))

    assert not plan.after_bios
    assert memory.read(0, 0x400) == bytes(0x400)
