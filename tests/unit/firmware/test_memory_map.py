"""The memory map: where a PC has RAM, where it has not, and every size in between."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.layout import ram_ranges
from kvmbox.firmware.memory_map import AVAILABLE, RESERVED, memory_map

EBDA = (0x9FC00, 0x400, RESERVED)
FIRMWARE = (0xF0000, 0x10000, RESERVED)
MMIO_UART = (0xD0000000, 0x1000, RESERVED)
FRAME_BUFFER = (0xE0000000, 0x1000000, RESERVED)
CHIPS = (0xFEC00000, 0x1400000, RESERVED)


def ranges(memory_size: int) -> list[tuple[int, int, int]]:
    return [(one.base, one.length, one.kind) for one in memory_map(memory_size)]


def test_map_of_128_mib_is_that_of_a_pc() -> None:
    assert ranges(128 * layout.MIB) == [
        (0, 0x9FC00, AVAILABLE),
        EBDA,
        FIRMWARE,
        (0x100000, 0x7F00000, AVAILABLE),
        MMIO_UART,
        FRAME_BUFFER,
        CHIPS,
    ]


def test_map_above_the_hole_goes_on_at_4_gib() -> None:
    assert ranges(5 * layout.GIB) == [
        (0, 0x9FC00, AVAILABLE),
        EBDA,
        FIRMWARE,
        (0x100000, 0xBFF00000, AVAILABLE),
        MMIO_UART,
        FRAME_BUFFER,
        CHIPS,
        (0x100000000, 0x80000000, AVAILABLE),
    ]


def test_map_of_1_mib_has_conventional_memory_only() -> None:
    assert ranges(layout.MIB) == [(0, 0x9FC00, AVAILABLE), EBDA, FIRMWARE, MMIO_UART, FRAME_BUFFER, CHIPS]


@pytest.mark.parametrize("size", [4096, 0x9F000, 0xA0000])
def test_map_of_less_than_1_mib_ends_where_ram_does_or_the_ebda_begins(size: int) -> None:
    assert ranges(size)[0] == (0, min(size, 0x9FC00), AVAILABLE)
    assert ranges(size)[1:] == [EBDA, FIRMWARE, MMIO_UART, FRAME_BUFFER, CHIPS]


@given(st.integers(1, layout.MAX_MEMORY // layout.PAGE_SIZE))
def test_available_is_ram_and_nothing_overlaps_at_any_size(pages: int) -> None:
    size = pages * layout.PAGE_SIZE
    found = memory_map(size)

    assert all(one.length > 0 for one in found)
    assert all(lower.end <= upper.base for lower, upper in pairwise(found))
    ram = [(start, start + length) for start, length in ram_ranges(size)]
    available = [one for one in found if one.kind == AVAILABLE]
    assert all(any(start <= one.base and one.end <= end for start, end in ram) for one in available)
    # RAM of which the guest is not told: the EBDA, and 0xA0000..1 MiB.
    told = sum(one.length for one in available)
    assert size - told == max(min(size, layout.MIB) - 0x9FC00, 0)


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (layout.EBDA, "EBDA"),
        (layout.FIRMWARE_TABLES, "tables"),
        (layout.BIOS_ROM, "BIOS"),
        (layout.MMIO_UART_BASE, "UART"),
        (layout.IO_APIC_BASE, "I/O APIC"),
        (layout.HPET_BASE, "HPET"),
        (layout.LOCAL_APIC_BASE, "local APIC"),
        (layout.KVM_IDENTITY_MAP_ADDRESS, "KVM's page table"),
        (layout.KVM_TSS_ADDRESS, "KVM's TSS"),
        (0xFFFFFFF0, "reset vector"),
    ],
)
def test_what_is_somebody_elses_is_reserved(address: int, what: str) -> None:
    kinds = {one.kind for one in memory_map(4 * layout.GIB) if one.base <= address < one.end}
    assert kinds == {RESERVED}, what
