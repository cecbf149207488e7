"""Guest memory in a snapshot file: written without its zeros, checked, and mapped.

Memory is looked at in blocks. A block that is all zero is left out: it is a hole in the file, takes no room
on the disk, and reads as zero. Blocks with something in them make runs, each with a checksum. The check
before a restore covers the whole area: runs by their checksums, and whatever else the file system says is
data must be zero, as it is in a copy without holes.
"""

from __future__ import annotations

import binascii
import errno
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from kvmbox.layout import PAGE_SIZE
from kvmbox.memory import GuestMemory
from kvmbox.snapshot.layout import BLOCK, Run, damaged

_CHUNK: Final = 64 * BLOCK
"""Memory is first looked at in pieces of so many bytes: most of it is zero."""

MAX_RUN: Final = 1024
"""How many blocks a run has at most: what is read or written at a time."""

_ZEROS: Final = bytes(_CHUNK)


def runs_of(memory: GuestMemory) -> Iterator[tuple[Run, memoryview]]:
    """The runs of blocks that are not all zero, in order, and their bytes, which are valid until the next."""
    base = 0
    for region in memory.regions:
        with memoryview(region.pages) as view:
            for start, end in _not_zero(region.pages, region.size):
                with view[start:end] as piece:
                    first, count = (base + start) // BLOCK, -(-(end - start) // BLOCK)
                    yield Run(first, count, binascii.crc32(piece)), piece
        base += region.size


def _not_zero(pages: mmap.mmap, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the longest runs of blocks that are not all zero, up to `MAX_RUN` blocks each."""
    begun: int | None = None
    for chunk in range(0, size, _CHUNK):
        length = min(_CHUNK, size - chunk)
        if pages[chunk : chunk + length] == _ZEROS[:length]:
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


def check(memory: GuestMemory, runs: Sequence[Run], descriptor: int) -> None:
    """Whether `memory`, which is mapped from `descriptor`, is as `runs` say. Raises SnapshotFileError."""
    base = 0
    left = list(runs)
    for region in memory.regions:
        with memoryview(region.pages) as view:
            while left and left[0].first * BLOCK < base + region.size:
                run = left.pop(0)
                start = run.first * BLOCK - base
                with view[start : start + run.count * BLOCK] as piece:
                    if binascii.crc32(piece) != run.checksum:
                        raise damaged(f"the checksum of guest memory at {region.start + start:#x} is wrong")
        base += region.size
    _check_holes(runs, descriptor, base)


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
