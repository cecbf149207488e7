"""Guest memory in a snapshot file: written without its zeros, read, and checked.

Memory is looked at in blocks. A block that is all zero is left out: it is a hole in the file, takes no room
on the disk, and reads as zero. Blocks with something in them make runs, each with a checksum. A restore reads
the runs, checks what it has read, and covers the whole area: whatever else the file system says is data must
be zero, as it is in a copy without holes.

Memory that nobody has touched is not even looked at, where the kernel tells which pages there are: to read it
would cost a page fault for each, 100 ms for 128 MiB.
"""

from __future__ import annotations

import binascii
import errno
import mmap
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final

from kvmbox.layout import PAGE_SIZE
from kvmbox.memory import GuestMemory, MemoryRegion
from kvmbox.parts.snapshot.layout import BLOCK, Run, damaged

_CHUNK: Final = 64 * BLOCK
"""Memory is first looked at in pieces of so many bytes: most of it is zero."""

MAX_RUN: Final = 1024
"""How many blocks a run has at most: what is read or written at a time."""

_ZEROS: Final = bytes(_CHUNK)
_ENTRY: Final = 8
_SWAPPED: Final = 0x40


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
    step = _CHUNK // PAGE_SIZE
    return {
        chunk
        for chunk in range(0, region.size, _CHUNK)
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
    for chunk in range(0, size, _CHUNK):
        length = min(_CHUNK, size - chunk)
        if chunk in untouched or pages[chunk : chunk + length] == _ZEROS[:length]:
            if begun is not None:
                yield begun, chunk
                begun = None
            continue
        for start in range(chunk, chunk + length, BLOCK):
            end = min(start + BLOCK, size)
            if pages[start:end] == _ZEROS[: end - start]:
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


def read(memory: GuestMemory, runs: Sequence[Run], descriptor: int) -> None:
    """Fill `memory`, which is fresh, with `runs` of the file `descriptor`. What is checked is what is in
    memory: the file may change meanwhile. Raises SnapshotFileError and OSError.
    """
    base = 0
    left = list(runs)
    for region in memory.regions:
        with memoryview(region.pages) as view:
            while left and left[0].first * BLOCK < base + region.size:
                run = left.pop(0)
                start = run.first * BLOCK - base
                with view[start : start + run.count * BLOCK] as piece:
                    _read(descriptor, PAGE_SIZE + run.first * BLOCK, piece)
                    if binascii.crc32(piece) != run.checksum:
                        raise damaged(f"the checksum of guest memory at {region.start + start:#x} is wrong")
        base += region.size
    _check_holes(runs, descriptor, base)


def _read(descriptor: int, place: int, piece: memoryview) -> None:
    done = 0
    while done < len(piece):
        with piece[done:] as left:
            count = os.preadv(descriptor, [left], place + done)
        if not count:
            raise damaged("it has become shorter")
        done += count


def _check_holes(runs: Sequence[Run], descriptor: int, size: int) -> None:
    """Whatever of the memory's area is data and in no run is zero."""
    position = 0
    for run in (*runs, Run(-(-size // BLOCK), 0, 0)):
        _check_zeros(descriptor, position, min(run.first * BLOCK, size))
        position = (run.first + run.count) * BLOCK


def _check_zeros(descriptor: int, start: int, end: int) -> None:
    while start < end:
        try:
            start = max(start, os.lseek(descriptor, PAGE_SIZE + start, os.SEEK_DATA) - PAGE_SIZE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only holes are left
                return
            if error.errno != errno.EINVAL:  # a file system that knows no holes: all is data
                raise
        length = min(_CHUNK, end - start)
        if length <= 0:
            return
        os.lseek(descriptor, PAGE_SIZE + start, os.SEEK_SET)
        data = os.read(descriptor, length)
        if not data or data != _ZEROS[: len(data)]:
            raise damaged(f"guest memory is not zero where it should be, near {start:#x} of it")
        start += len(data)


def write(memory: GuestMemory, put: Callable[[int, memoryview], None]) -> list[Run]:
    """Write memory by `put(place in the file, bytes)`; returns its runs. Raises what `put` raises."""
    runs = []
    for run, piece in runs_of(memory):
        put(PAGE_SIZE + run.first * BLOCK, piece)
        runs.append(run)
    return runs
