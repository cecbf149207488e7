"""A PC's memory map, as E820 ranges.

RAM starts at 0 and skips the hole for devices below 4 GiB. The last KiB of conventional memory is the
extended BIOS data area; the last 64 KiB below 1 MiB are the firmware's, with its tables. Nothing is said of
0xA0000..0xEFFFF, as no PC says anything of its video memory and option ROMs. Of the hole only what devices or
KVM itself use is reserved.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.layout import ram_ranges
from kvmbox.base.value_classes import Value

# ACPI Specification 6.5, section 15.1: address range types.
AVAILABLE: Final = 1
RESERVED: Final = 2


class MemoryRange(Value):
    """`length` bytes from guest-physical `base`, of one of the kinds above."""

    base: int
    length: int
    kind: int

    @property
    def end(self) -> int:
        """The first guest-physical address behind the range."""
        return self.base + self.length


def memory_map(memory_size: int) -> tuple[MemoryRange, ...]:
    """All ranges that a guest with `memory_size` bytes of RAM is told of, in ascending order and disjoint.

    The reserved ranges are the same for every size, also for one that ends below them.
    """
    (_, low_end), *high = ram_ranges(memory_size)
    available = [(0, min(low_end, layout.EBDA)), (layout.HIGH_MEMORY_START, low_end), *_ends(high)]
    reserved = [
        (layout.EBDA, layout.LOW_MEMORY_END),
        (layout.FIRMWARE_START, layout.HIGH_MEMORY_START),
        (layout.MMIO_UART_BASE, layout.MMIO_UART_BASE + layout.PAGE_SIZE),
        (layout.FRAME_BUFFER, layout.FRAME_BUFFER + layout.FRAME_BUFFER_SIZE),
        (layout.CHIP_SET_START, layout.MMIO_HOLE_END),
    ]
    kinds = [(AVAILABLE, available), (RESERVED, reserved)]
    ranges = [
        MemoryRange(start, end - start, kind) for kind, parts in kinds for start, end in parts if start < end
    ]
    return tuple(sorted(ranges, key=lambda one: one.base))


def _ends(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(start, start + size) for start, size in ranges]
