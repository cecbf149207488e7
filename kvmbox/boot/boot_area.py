"""The boot area: where the GDT, page tables, first stack and boot information of an entry go.

It is one run of pages in conventional memory: usually from 0x1000 on. An image that wants to be there has the
precedence. The area then moves, to the first place that is free.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import GuestImage

PAGE_DIRECTORIES: Final = 4
_FIXED_PAGES: Final = 3 + PAGE_DIRECTORIES + 1  # GDT, PML4, PDPT, page directories, stack
DEFAULT_INFO_SIZE: Final = layout.BOOT_AREA_END - layout.BOOT_AREA_START - _FIXED_PAGES * layout.PAGE_SIZE


class BootArea(Value):
    """The area at guest-physical `base`, a page boundary, with `info_size` bytes for boot information."""

    base: int = layout.BOOT_AREA_START
    info_size: int = DEFAULT_INFO_SIZE

    @property
    def gdt(self) -> int:
        """One page."""
        return self.base

    @property
    def pml4(self) -> int:
        """One page, as the PDPT behind it."""
        return self.base + layout.PAGE_SIZE

    @property
    def pdpt(self) -> int:
        """One page."""
        return self.base + 2 * layout.PAGE_SIZE

    @property
    def page_directories(self) -> int:
        """Four pages, which map 0..4 GiB."""
        return self.base + 3 * layout.PAGE_SIZE

    @property
    def stack_top(self) -> int:
        """One page below it is the first stack."""
        return self.base + _FIXED_PAGES * layout.PAGE_SIZE

    @property
    def info(self) -> int:
        """Boot information, a page boundary: it begins where the stack ends."""
        return self.stack_top

    @property
    def end(self) -> int:
        """The first address behind the area."""
        return self.info + self.info_size


def place_area(
    image: GuestImage, taken: Iterable[tuple[int, int]], info_size: int = DEFAULT_INFO_SIZE
) -> BootArea:
    """The first place that is clear of the (start, end) ranges `taken`; ImageError if there is none."""
    ranges = sorted((start, end) for start, end in taken if start < end)
    size = BootArea(0, info_size).end
    base = layout.BOOT_AREA_START
    for start, end in ranges:
        if start < base + size and base < end:
            base = -(-end // layout.PAGE_SIZE) * layout.PAGE_SIZE
    if base + size > layout.EBDA:
        raise image.error(
            f"it leaves no {size // layout.KIB} KiB of conventional memory free, which kvmbox needs for the"
            " GDT, page tables, first stack and boot information",
            hint="load less of it below 640 KiB",
        )
    return BootArea(base, info_size)


class InfoWriter:
    """Fills the boot information of an area from its start, piece after piece."""

    def __init__(self, area: BootArea) -> None:
        self._start = area.info
        self._position = area.info
        self._end = area.end
        self._writes: list[tuple[int, bytes]] = []

    def reserve(self, size: int, align: int = 1) -> int:
        """The guest-physical address of `size` bytes for `put`. UsageError if there is no more room."""
        address = -(-self._position // align) * align
        if address + size > self._end:
            raise UsageError(
                "the command line, modules and their arguments are longer than the"
                f" {self._end - self._start} bytes that fit into the boot information",
                hint="pass long data as a module",
            )
        self._position = address + size
        return address

    def put(self, address: int, data: bytes) -> None:
        """Write `data` at an address that was reserved."""
        self._writes.append((address, data))

    def add(self, data: bytes, align: int = 1) -> int:
        """Append `data`; returns its guest-physical address. UsageError if there is no more room."""
        address = self.reserve(len(data), align)
        self.put(address, data)
        return address

    def add_string(self, text: bytes) -> int:
        """Append `text` and a NUL; returns its guest-physical address."""
        return self.add(text + b"\0")

    @property
    def writes(self) -> tuple[tuple[int, bytes], ...]:
        """All that was put, as (address, bytes)."""
        return tuple(self._writes)
