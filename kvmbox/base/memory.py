"""Guest memory: private host pages, seen at guest-physical addresses.

The pages are anonymous, and zero at first. A snapshot is read into them: pages of a file would be gone as
soon as somebody shortens the file (SIGBUS).

RAM starts at 0 and skips the hole below 4 GiB (`layout.MMIO_HOLE_START`). Every access is checked: a
range that is not wholly inside one region raises `GuestMemoryError`; nothing is ever clipped in silence.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import StartError
from kvmbox.base.layout import ram_ranges
from kvmbox.base.value_classes import Value

WINDOW_SLOT: Final = 1
"""Which of `GuestMemory.pieces` is the window of a VGA."""

MAP_NORESERVE: Final = 0x4000  # <asm-generic/mman-common.h>; the mmap module has it from Python 3.13


class GuestMemoryError(Exception):
    """A guest-physical range is not backed by RAM."""


class MemoryRegion(Value):
    """`size` bytes of RAM at guest-physical `start`, backed by `pages` at host-virtual `host_address`."""

    start: int
    size: int
    pages: mmap.mmap
    host_address: int

    @property
    def end(self) -> int:
        """The first guest-physical address behind the region."""
        return self.start + self.size


def host_address_of(pages: mmap.mmap) -> int:
    """Where a mapping is; valid for as long as the mmap object."""
    # SAFETY: from_buffer exports the mapping, so it cannot be unmapped while `view` lives; the address
    # stays valid for as long as the mmap object, which MemoryRegion keeps.
    view = ctypes.c_char.from_buffer(pages)
    address = ctypes.addressof(view)
    del view
    return address


def _map(start: int, length: int) -> MemoryRegion:
    # MAP_NORESERVE: a guest is given its size, the host pays for what is touched.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
    try:
        pages = mmap.mmap(-1, length, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except OSError as error:
        raise StartError(
            f"cannot map {length} bytes of guest memory: {error.strerror}",
            hint="ask for less with --memory",
        ) from error
    # A core dump of the VMM must not hold the guest's memory, and no child may inherit it.
    pages.madvise(mmap.MADV_DONTDUMP)
    pages.madvise(mmap.MADV_DONTFORK)
    return MemoryRegion(start, length, pages, host_address_of(pages))


class GuestMemory:
    """All RAM of one guest. Sizes and addresses are bytes; fresh memory reads as zero."""

    def __init__(self, size: int) -> None:
        if size <= 0 or size % layout.PAGE_SIZE:
            raise ValueError(f"memory size {size} is not a positive multiple of {layout.PAGE_SIZE}")
        self.size = size
        self.regions = [_map(start, length) for start, length in ram_ranges(size)]
        # For devices, which make many accesses: a property, or a new view, costs more than looking here.
        self._spans: list[tuple[int, int, mmap.mmap, memoryview]] = []
        for region in self.regions:
            self.add_span(region)
        self.video: list[MemoryRegion] = []
        """The frame buffer, once it is used: the guest and its devices reach it as they reach RAM."""
        self.shows_video = False
        """Whether a piece of it is in the window of the VGA."""
        self.show_video: Callable[[Sequence[MemoryRegion]], None] = lambda _regions: None
        """What lets the guest that runs see it."""
        self.roms: list[MemoryRegion] = []
        """What the guest can read and execute, and is no RAM: neither devices nor `write` reach it."""

    @property
    def pieces(self) -> list[MemoryRegion]:
        """The regions in pieces, as KVM gets them. The window of a VGA may be taken out."""
        low, *high = self.regions
        cuts = (0, layout.VGA_MEMORY, layout.VGA_MEMORY + layout.VGA_MEMORY_SIZE, low.size)
        return [
            MemoryRegion(start, end - start, low.pages, low.host_address + start)
            for start, end in pairwise(cuts)
        ] + high

    def add_rom(self, start: int, data: bytes) -> None:
        """Put `data`, whole pages, at guest-physical `start`, outside of RAM; again is harmless."""
        for rom in self.roms:
            if (rom.start, rom.size) == (start, len(data)):
                return
        pages = mmap.mmap(-1, len(data), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        pages.madvise(mmap.MADV_DONTFORK)
        pages[:] = data
        self.roms.append(MemoryRegion(start, len(data), pages, host_address_of(pages)))

    def add_span(self, one: MemoryRegion) -> None:
        """Accesses reach a region from now on."""
        self._spans.append((one.start, one.end, one.pages, memoryview(one.pages).cast("H")))

    def _locate(self, address: int, size: int) -> tuple[mmap.mmap, int]:
        for start, end, pages, _ in self._spans:
            if start <= address and address + size <= end and size >= 0:
                return pages, address - start
        raise GuestMemoryError(f"guest memory {address:#x}+{size:#x} is not RAM")

    def _word(self, address: int) -> tuple[memoryview, int]:
        for start, end, _, words in self._spans:
            if start <= address and address + 2 <= end:
                return words, address - start >> 1
        raise GuestMemoryError(f"guest memory {address:#x}+0x2 is not RAM")

    def contains(self, address: int, size: int) -> bool:
        """Whether [address, address + size) is RAM, wholly inside one region."""
        if size >= 0:
            for start, end, _, _ in self._spans:
                if start <= address and address + size <= end:
                    return True
        return False

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from guest-physical `address`; GuestMemoryError if they are not all RAM."""
        pages, offset = self._locate(address, size)
        return pages[offset : offset + size]

    def has(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether every (address, size) is RAM; one of no bytes is, wherever it is."""
        return all(size == 0 or self.contains(address, size) for address, size in ranges)

    def gather(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        """The bytes of ranges that are RAM, joined in order."""
        return b"".join([self.read(address, size) for address, size in ranges if size])

    def available(self, address: int, size: int) -> bytes:
        """The bytes from `address` on, at most `size`: up to the first that is not in RAM or a ROM."""
        for region in (*self.regions, *self.video, *self.roms):
            if region.start <= address < region.end:
                offset = address - region.start
                return bytes(region.pages[offset : offset + min(size, region.end - address)])
        return b""

    def byte_at(self, address: int) -> int | None:
        """The byte at guest-physical `address`, or None if there is neither RAM nor ROM."""
        for region in (*self.regions, *self.video, *self.roms):
            if region.start <= address < region.end:
                return region.pages[address - region.start]
        return None

    def write(self, address: int, data: bytes | bytearray | memoryview) -> None:
        """Store `data` at guest-physical `address`; GuestMemoryError if not all of it is RAM."""
        view = memoryview(data).cast("B")  # bytes, whatever the items of `data` are
        pages, offset = self._locate(address, view.nbytes)
        pages[offset : offset + view.nbytes] = view

    def load16(self, address: int) -> int:
        """Two bytes at an even address that is RAM, little-endian, read in one access.

        A slice would be copied byte by byte, as far as Python promises: the guest may be writing them.
        """
        words, index = self._word(address)
        return words[index]

    def store16(self, address: int, value: int) -> None:
        """The same to write: another CPU sees the old value or the new one, and no mixture."""
        words, index = self._word(address)
        words[index] = value

    def fill(self, address: int, size: int, value: int = 0) -> None:
        """Set `size` bytes at guest-physical `address` to `value`, in bounded steps."""
        pages, offset = self._locate(address, size)
        step = layout.MIB
        block = bytes([value]) * min(size, step)
        for position in range(offset, offset + size, step):
            length = min(step, offset + size - position)
            pages[position : position + length] = block[:length]

    def zero(self, address: int, size: int) -> None:
        """Let `size` bytes of RAM at `address` read as zero. Whole pages go back to the host, unread: kernels
        reserve a heap of many megabytes, which must not cost a page fault for each page.
        """
        pages, offset = self._locate(address, size)
        head = min(size, -address % layout.PAGE_SIZE)
        tail = (size - head) % layout.PAGE_SIZE
        if whole := size - head - tail:
            pages.madvise(mmap.MADV_DONTNEED, offset + head, whole)
        self.fill(address, head)
        self.fill(address + size - tail, tail)

    def clear(self) -> None:
        """All of RAM reads as zero again, and the host gets its pages back. No VM uses it now."""
        for region in self.regions:
            region.pages.madvise(mmap.MADV_DONTNEED)
        for region in self.video:  # other pages of the host: nobody else has them
            region.pages.madvise(mmap.MADV_REMOVE)

    def close(self) -> None:
        """Unmap. The VM that uses the memory must be closed first."""
        for *_, words in self._spans:
            words.release()
        self._spans.clear()
        for region in (*self.regions, *self.video, *self.roms):
            region.pages.close()
        self.regions.clear()
        self.video.clear()
        self.roms.clear()
