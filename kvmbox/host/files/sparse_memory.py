"""Guest memory as runs of what is not zero, for files that have holes for the rest.

Memory is looked at in blocks. A block that is all zero is left out: it is a hole in the file, takes no room
on the disk, and reads as zero. Blocks with something in them make runs, each with a checksum.

Memory that nobody has touched is not even looked at, where the kernel tells which pages there are: to read it
would cost a page fault for each, 100 ms for 128 MiB.
"""

from __future__ import annotations

import binascii
import mmap
import os
from collections.abc import Collection, Iterator
from typing import Final

from kvmbox.base.layout import PAGE_SIZE
from kvmbox.base.memory import GuestMemory, MemoryRegion
from kvmbox.base.value_classes import Value

BLOCK: Final = 4 * PAGE_SIZE
"""Guest memory is written, left out, and described in units of so many bytes."""

CHUNK: Final = 64 * BLOCK
"""Memory is first looked at in pieces of so many bytes: most of it is zero."""

MAX_RUN: Final = 1024
"""How many blocks a run has at most: what is read or written at a time."""

ZEROS: Final = bytes(CHUNK)
_ENTRY: Final = 8
_SWAPPED: Final = 0x40


class Run(Value):
    """`count` blocks of memory from block `first` on, and their CRC-32."""

    first: int
    count: int
    checksum: int


def runs_of(memory: GuestMemory) -> Iterator[tuple[Run, memoryview]]:
    """The runs of blocks that are not all zero, in order, and their bytes, which are valid until the next."""
    base = 0
    for region in memory.regions:
        with memoryview(region.pages) as view:
            for start, end in _not_zero(region.pages, region.size, _untouched(region)):
                with view[start:end] as piece:
                    first, count = (base + start) // BLOCK, -(-(end - start) // BLOCK)
                    yield Run(first, count, binascii.crc32(piece)), piece
        base += region.size


def _untouched(region: MemoryRegion) -> set[int]:
    """The chunks of a region, by their beginning, that are zero because nobody has written to them.

    Empty where the kernel does not tell.
    """
    try:
        entries = _page_map(region)
    except OSError:
        return set()
    tops = entries[7::8]  # the bits "present" and "swapped" are the highest two of each entry
    step = CHUNK // PAGE_SIZE
    return {
        chunk
        for chunk in range(0, region.size, CHUNK)
        if max(tops[chunk // PAGE_SIZE : chunk // PAGE_SIZE + step], default=0xFF) < _SWAPPED
    }


def _page_map(region: MemoryRegion) -> bytes:
    """The entry of each page of a region (Documentation/admin-guide/mm/pagemap.rst). Raises OSError."""
    left = region.size // PAGE_SIZE * _ENTRY
    parts = []
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(region.host_address // PAGE_SIZE * _ENTRY)
        while left:
            part = file.read(min(left, 1 << 20))
            if not part:
                raise OSError("the map of pages ends")
            parts.append(part)
            left -= len(part)
    return b"".join(parts)


def _not_zero(pages: mmap.mmap, size: int, untouched: Collection[int]) -> Iterator[tuple[int, int]]:
    """(start, end) of the longest runs of blocks that are not all zero, up to `MAX_RUN` blocks each.

    The chunks that begin at `untouched` are not looked at.
    """
    begun: int | None = None
    for chunk in range(0, size, CHUNK):
        length = min(CHUNK, size - chunk)
        if chunk in untouched or pages[chunk : chunk + length] == ZEROS[:length]:
            if begun is not None:
                yield begun, chunk
                begun = None
            continue
        for start in range(chunk, chunk + length, BLOCK):
            end = min(start + BLOCK, size)
            if pages[start:end] == ZEROS[: end - start]:
                if begun is not None:
                    yield begun, start
                    begun = None
            elif begun is None:
                begun = start
            elif start - begun == MAX_RUN * BLOCK:
                yield begun, start
                begun = start
    if begun is not None:
        yield begun, size


def put(descriptor: int, place: int, data: bytes | memoryview) -> None:
    """Write all of `data` at `place`. Raises OSError."""
    # Not pwrite, which a confined VMM may not call: nobody else moves this offset.
    os.lseek(descriptor, place, os.SEEK_SET)
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]
