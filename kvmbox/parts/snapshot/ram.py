"""Guest memory in a snapshot file: written without its zeros, read, and checked.

What is not zero is in runs (`host.files.sparse_memory`). A restore reads the runs, checks what it has read,
and covers the whole area: whatever else the file system says is data must be zero, as in a copy without
holes.
"""

from __future__ import annotations

import binascii
import errno
import os
from collections.abc import Callable, Sequence

from kvmbox.base.layout import PAGE_SIZE
from kvmbox.base.memory import GuestMemory
from kvmbox.host.files.sparse_memory import BLOCK, CHUNK, ZEROS, Run, runs_of
from kvmbox.parts.snapshot.file_layout import damaged


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
        length = min(CHUNK, end - start)
        if length <= 0:
            return
        os.lseek(descriptor, PAGE_SIZE + start, os.SEEK_SET)
        data = os.read(descriptor, length)
        if not data or data != ZEROS[: len(data)]:
            raise damaged(f"guest memory is not zero where it should be, near {start:#x} of it")
        start += len(data)


def write(memory: GuestMemory, put: Callable[[int, memoryview], None]) -> list[Run]:
    """Write memory by `put(place in the file, bytes)`; returns its runs. Raises what `put` raises."""
    runs = []
    for run, piece in runs_of(memory):
        put(PAGE_SIZE + run.first * BLOCK, piece)
        runs.append(run)
    return runs
