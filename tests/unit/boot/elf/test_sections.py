"""Section headers for the kernel: what is loaded, where, and what is left out."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, GuestImage, Module, load_image
from kvmbox.boot.elf.sections import MAX_SECTIONS, plan_sections
from tests.support.boot_images import CODE, Piece, elf, multiboot_header

NULL, PROGBITS, SYMTAB, STRTAB, NOBITS = 0, 1, 2, 3, 8


def section(
    bits: int, kind: int, address: int = 0, offset: int = 0, size: int = 0, alignment: int = 1
) -> bytes:
    """A section header (gABI): where its bytes are, and where it belongs."""
    layout_of_class = "<10I" if bits == 32 else "<IIQQQQIIQQ"
    return struct.pack(layout_of_class, 0, kind, 0, address, offset, size, 0, 0, alignment, 0)


def with_sections(bits: int, headers: list[bytes], *, names: int = 1) -> bytes:
    """A Multiboot kernel with these section headers behind its code, and 16 bytes of 'symbols'."""
    data = elf([Piece(data=multiboot_header() + CODE)], bits=bits, entry=0x10000C)
    symbols = len(data)
    data += b"symbols, strings"
    table = b"".join(headers)
    data = elf(
        [Piece(data=multiboot_header() + CODE)],
        bits=bits,
        entry=0x10000C,
        section_offset=symbols + 16,
        section_count=len(headers),
    )
    at = 50 if bits == 32 else 62
    return data[:at] + struct.pack("<H", names) + data[at + 2 :] + b"symbols, strings" + table


def symbols_offset(bits: int) -> int:
    return len(elf([Piece(data=multiboot_header() + CODE)], bits=bits))


@pytest.mark.parametrize("bits", [32, 64])
def test_symbols_are_loaded_behind_the_modules_and_the_headers_say_where(bits: int) -> None:
    place = symbols_offset(bits)
    headers = [
        section(bits, NULL),
        section(bits, PROGBITS, address=0x100000, offset=place - 44, size=44),
        section(bits, SYMTAB, offset=place, size=7, alignment=16),
        section(bits, STRTAB, offset=place + 9, size=7),
        section(bits, NOBITS, address=0x200000, size=0x1000),
    ]
    memory = GuestMemory(8 * layout.MIB)
    plan = load_image(
        GuestImage("k", with_sections(bits, headers, names=3)),
        memory,
        BootOptions(modules=(Module("m", b"x"),)),
    )

    info = memory.read(plan.state.rbx, 44)
    flags, count, size, address, names = struct.unpack("<I24x4I", info)
    assert flags & 1 << 5
    assert (count, size, names) == (5, 40 if bits == 32 else 64, 3)
    assert address == plan.modules[0][0] + layout.PAGE_SIZE
    given = [memory.read(address + index * size, size) for index in range(count)]
    assert [given[index] for index in (0, 1, 4)] == [headers[index] for index in (0, 1, 4)]
    where = "<I" if bits == 32 else "<Q"
    at = 12 if bits == 32 else 16
    symtab, strtab = (struct.unpack_from(where, one, at)[0] for one in given[2:4])
    assert symtab % 16 == 0
    assert symtab >= address + count * size
    assert memory.read(symtab, 7) == b"symbols"
    assert memory.read(strtab, 7) == b"strings"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [section(32, SYMTAB, offset=symbols_offset(32), size=0x1000)],
        [section(32, SYMTAB, offset=0xFFFF_FFFF, size=0xFFFF_FFFF)],
        [section(32, NOBITS, size=0xFFFF_FFFF)],
        [section(32, SYMTAB, offset=symbols_offset(32), size=16, alignment=0xFFFF_FFFF)],
    ],
)
def test_absurd_section_does_not_stop_the_kernel(headers: list[bytes]) -> None:
    plan = load_image(GuestImage("k", with_sections(32, headers)), GuestMemory(2 * layout.MIB), BootOptions())

    assert plan.format == "multiboot"


def test_sections_larger_than_the_file_together_are_left_out() -> None:
    most = symbols_offset(32)
    image = GuestImage("k", with_sections(32, [section(32, SYMTAB, size=most)]))
    bomb = GuestImage("k", with_sections(32, [section(32, SYMTAB, size=most)] * 3))

    assert plan_sections(image, 32, 0x200000, 0x300000) is not None
    assert plan_sections(bomb, 32, 0x200000, 0x300000) is None


def test_sections_that_do_not_fit_are_left_out() -> None:
    image = GuestImage("k", with_sections(32, [section(32, SYMTAB, offset=symbols_offset(32), size=16)]))

    assert plan_sections(image, 32, 0x200000, 0x200000 + 40 + 16) is not None
    assert plan_sections(image, 32, 0x200000, 0x200000 + 40 + 15) is None
    assert plan_sections(image, 32, 0x200001, 0x200000 + 40 + 16) is None


def test_more_section_headers_than_any_kernel_has_are_left_out() -> None:
    image = GuestImage("k", with_sections(32, [section(32, NULL)] * (MAX_SECTIONS + 1)))

    assert plan_sections(image, 32, 0x200000, 0x900000) is None
