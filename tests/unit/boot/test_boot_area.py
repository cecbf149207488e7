"""The boot area: its parts, where it goes, and what it does when an image wants its place."""

from __future__ import annotations

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, GuestImage, load_image
from kvmbox.boot.boot_area import BootArea, InfoWriter, place_area
from tests.support.boot_images import CODE, Piece, elf, multiboot_header

IMAGE = GuestImage("kernel", b"")


def test_parts_of_the_area_follow_each_other() -> None:
    area = BootArea()
    parts = [area.gdt, area.pml4, area.pdpt, area.page_directories, area.page_directories + 0x4000]

    assert parts == [0x1000, 0x2000, 0x3000, 0x4000, 0x8000]
    assert area.stack_top == area.info == 0x9000
    assert area.end == layout.BOOT_AREA_END


@pytest.mark.parametrize(
    ("taken", "base"),
    [
        ([], 0x1000),
        ([(0x100000, 0x200000)], 0x1000),
        ([(0, 0x1000)], 0x1000),
        ([(0xC000, 0xD000)], 0x1000),
        ([(0xBFFF, 0xC000)], 0xC000),
        ([(0x8000, 0x9001)], 0xA000),
        ([(0x20000, 0x30000), (0x8000, 0x10000)], 0x10000),
        ([(0x1B000, 0x30000), (0x8000, 0x10000)], 0x10000),
        ([(0x1AFFF, 0x30000), (0x8000, 0x10000)], 0x30000),
        ([(0x1000, 0x1000)], 0x1000),
    ],
)
def test_area_goes_to_the_first_place_that_is_free(taken: list[tuple[int, int]], base: int) -> None:
    assert place_area(IMAGE, taken).base == base


def test_area_without_a_place_is_refused() -> None:
    with pytest.raises(ImageError, match="no 44 KiB of conventional memory free"):
        place_area(IMAGE, [(0x8000, 0x95000)])


def test_multiboot_kernel_at_0x8000_moves_the_area() -> None:
    data = elf([Piece(data=multiboot_header() + CODE, virtual=0x8000, memory_size=0x3000)], entry=0x800C)
    memory = GuestMemory(2 * layout.MIB)

    plan = load_image(GuestImage("realmode", data), memory, BootOptions(command_line="hi"))

    assert memory.read(0x8000, 12) == multiboot_header()
    assert plan.state.gdt.base == 0xB000
    assert plan.state.rbx == BootArea(0xB000).info
    assert memory.read(0x1000, 0x7000) == bytes(0x7000)


def test_information_fits_to_the_last_byte_and_no_further() -> None:
    area = BootArea(0x1000, 0x1000)
    writer = InfoWriter(area)

    assert writer.add(b"a") == area.info
    assert writer.add(b"bc", 8) == area.info + 8
    assert writer.reserve(0x1000 - 10) == area.info + 10
    assert writer.reserve(0) == area.end
    with pytest.raises(UsageError, match="4096 bytes"):
        writer.add_string(b"")
    assert writer.writes == ((area.info, b"a"), (area.info + 8, b"bc"))
