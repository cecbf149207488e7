"""The memory map of a PC: what is usable, what is the firmware's, what is the devices'."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvmbox import layout
from kvmbox.firmware.memory_map import AVAILABLE, MemoryRange, memory_map


def test_memory_map_above_the_hole_goes_on_at_4_gib() -> None:
    assert memory_map(5 * layout.GIB) == (
        MemoryRange(0, 0x9FC00, 1),
        MemoryRange(0x9FC00, 0x400, 2),
        MemoryRange(0xF0000, 0x10000, 2),
        MemoryRange(0x100000, 3 * layout.GIB - layout.MIB, 1),
        MemoryRange(3 * layout.GIB, layout.GIB, 2),
        MemoryRange(4 * layout.GIB, 2 * layout.GIB, 1),
    )


def test_memory_map_of_1_mib_has_no_high_memory() -> None:
    assert [one for one in memory_map(layout.MIB) if one.kind == AVAILABLE] == [MemoryRange(0, 0x9FC00, 1)]


@pytest.mark.parametrize("size", [1 << 20, 1 << 21, 3 << 30, (3 << 30) + 4096, 64 << 30])
def test_ranges_ascend_and_do_not_overlap(size: int) -> None:
    ranges = memory_map(size)

    assert all(one.length > 0 for one in ranges)
    assert all(lower.base + lower.length <= upper.base for lower, upper in pairwise(ranges))
