"""Flat 16-bit images: where they go, and how they start."""

from __future__ import annotations

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image

END = layout.LOW_MEMORY_END


def load(data: bytes, address: int | None = None) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(2 * layout.MIB)
    return load_image(GuestImage("g", data), memory, BootOptions(boot="real", load_address=address)), memory


def test_flat_boot_sector_starts_as_a_bios_would_start_it() -> None:
    sector = (b"\xfa\xf4" + bytes(508)) + b"\x55\xaa"

    result, memory = load(sector)

    state = result.state
    assert result.format == "real"
    assert [(s.index, s.address, s.end) for s in result.segments] == [(0, 0x7C00, 0x7E00)]
    assert memory.read(0x7C00, 512) == sector
    assert (state.cs.selector, state.cs.base, state.rip) == (0, 0, 0x7C00)
    assert (state.ss.selector, state.rsp) == (0, 0x7C00)
    assert state.rdx == 0x80
    assert (state.cr0 & 1, state.efer) == (0, 0)
    assert (state.idt.base, state.idt.limit) == (0, 0x3FF)
    assert state.data.selector == 0
    for segment in (state.cs, state.data, state.ss):
        assert (segment.limit, segment.present, segment.s, segment.db, segment.g) == (0xFFFF, 1, 1, 0, 0)


def test_flat_image_leaves_all_other_memory_zero() -> None:
    _, memory = load(b"\xf4")

    assert memory.read(0, 0x7C00) == bytes(0x7C00)
    assert memory.read(0x7C01, 0x100000) == bytes(0x100000)


@pytest.mark.parametrize(
    ("address", "cs", "ip"),
    [(0, 0, 0), (0x1000, 0, 0x1000), (0xFFFF, 0, 0xFFFF), (0x10000, 0x1000, 0), (0x12345, 0x1234, 5)],
)
def test_flat_load_address_becomes_cs_ip(address: int, cs: int, ip: int) -> None:
    result, memory = load(b"\xf4", address)

    assert (result.state.cs.selector, result.state.cs.base, result.state.rip) == (cs, cs << 4, ip)
    assert result.entry == address
    assert memory.read(address, 1) == b"\xf4"


@pytest.mark.parametrize(
    ("address", "size", "stack"),
    [
        (0x6C00 - 1, 1, (0, 0x7C00)),
        (0x6C00 - 1, 2, (0x9000, 0xF000)),
        (0x7BFF, 1, (0x9000, 0xF000)),
        (0x1000, 0x8000, (0x9000, 0xF000)),
        (0x7C00, END - 0x7C00, (0, 0x7C00)),
        (0x1000, 0x9E000 - 0x1000, (0x9000, 0xF000)),
    ],
)
def test_flat_stack_is_clear_of_the_image(address: int, size: int, stack: tuple[int, int]) -> None:
    state = load(bytes(size), address)[0].state

    assert (state.ss.selector, state.rsp) == stack
    top = state.ss.base + state.rsp
    assert top <= address or address + size <= top - 0x1000


@pytest.mark.parametrize(("address", "size"), [(None, END - 0x7C00 + 1), (END - 1, 2), (0x10000, layout.MIB)])
def test_flat_image_beyond_conventional_memory_is_refused(address: int | None, size: int) -> None:
    with pytest.raises(ImageError, match="0xa0000"):
        load(bytes(size), address)


def test_flat_image_without_room_for_a_stack_is_refused() -> None:
    with pytest.raises(ImageError, match="stack"):
        load(bytes(0x9E001), 0)


def test_flat_empty_image_is_refused() -> None:
    with pytest.raises(ImageError, match="empty"):
        load(b"")


@pytest.mark.parametrize("address", [-1, END, 1 << 64])
def test_flat_load_address_out_of_reach_is_a_usage_error(address: int) -> None:
    with pytest.raises(UsageError, match="load address"):
        load(b"\xf4", address)


def test_flat_mode_takes_an_elf_file_as_bytes() -> None:
    _, memory = load(b"\x7fELF")

    assert memory.read(0x7C00, 4) == b"\x7fELF"
