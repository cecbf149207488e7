"""A PC's memory map, as E820 ranges.

RAM starts at 0 and skips the hole for devices below 4 GiB. The last KiB of conventional memory is the
extended BIOS data area; the last 64 KiB below 1 MiB are the firmware's, with its tables. Nothing is said of
0xA0000..0xEFFFF, as no PC says anything of its video memory and option ROMs.
"""

from __future__ import annotations

from typing import Final

from kvmbox import layout
from kvmbox.lean import Value

# ACPI Specification 6.5, table 15.8: address range types.
AVAILABLE: Final = 1
RESERVED: Final = 2
ACPI_RECLAIMABLE: Final = 3
ACPI_NVS: Final = 4


class MemoryRange(Value):
    """`length` bytes from guest-physical `base`, of one of the kinds above."""

    base: int
    length: int
    kind: int


def ram_ranges(memory_size: int) -> list[tuple[int, int]]:
    """The (start, size) pairs that `memory_size` bytes of RAM take, skipping the hole below 4 GiB."""
    low = min(memory_size, layout.MMIO_HOLE_START)
    ranges = [(0, low)]
    if memory_size > low:
        ranges.append((layout.MMIO_HOLE_END, memory_size - low))
    return ranges


def memory_map(memory_size: int) -> tuple[MemoryRange, ...]:
    """All ranges that a guest with `memory_size` bytes of RAM is told of, in ascending order."""
    (_, low_end), *high = ram_ranges(memory_size)
    ranges = [
        MemoryRange(0, min(low_end, layout.EBDA), AVAILABLE),
        MemoryRange(layout.EBDA, layout.LOW_MEMORY_END - layout.EBDA, RESERVED),
        MemoryRange(layout.FIRMWARE_START, layout.HIGH_MEMORY_START - layout.FIRMWARE_START, RESERVED),
        MemoryRange(layout.HIGH_MEMORY_START, low_end - layout.HIGH_MEMORY_START, AVAILABLE),
        MemoryRange(layout.MMIO_HOLE_START, layout.MMIO_HOLE_END - layout.MMIO_HOLE_START, RESERVED),
    ]
    ranges += [MemoryRange(start, length, AVAILABLE) for start, length in high]
    return tuple(one for one in ranges if one.length > 0)
