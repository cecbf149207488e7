"""What a guest has written to a disk whose file stays as it is: in memory, and bounded.

The disk is cut into clusters of 4 KiB, the size of a block of most file systems. A cluster takes memory from
the first write to it on. A bit for each of its sectors says what was written, so a write of one sector needs
nothing of the file, and never waits.

A write that does not fit stores nothing. Threads write one after the other, as the BIOS's disk and an IDE
drive may be the same disk. Others read meanwhile: who reads a sector that is being written gets what was
there, what will be, or some of both, as from any disk.
"""

from __future__ import annotations

import errno
import threading
from struct import Struct
from typing import Final

SECTOR: Final = 512
CLUSTER: Final = 4096

_CLUSTER: Final = Struct("<QQ")
"""In a snapshot, before the bytes of a cluster: its number, and which of its sectors were written."""
_SECTORS: Final = CLUSTER // SECTOR
_ALL: Final = (1 << _SECTORS) - 1


class Overlay:
    """Sectors by their offset. It holds at most `limit` bytes, which counts whole clusters."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._clusters: dict[int, bytearray] = {}
        self._partial: dict[int, int] = {}
        """The clusters that were not written as a whole, and which sectors of them were."""
        self._writing = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes of memory that count."""
        return len(self._clusters) * CLUSTER

    def write(self, offset: int, data: bytes) -> None:
        """Store whole sectors. OSError with ENOSPC where they do not fit, EINVAL for parts of sectors."""
        if offset % SECTOR or len(data) % SECTOR:
            raise OSError(errno.EINVAL, "a disk is written in whole sectors")
        numbers = range(offset // CLUSTER, -(-(offset + len(data)) // CLUSTER))
        with self._writing:
            new = sum(number not in self._clusters for number in numbers)
            if self.used + new * CLUSTER > self._limit:
                raise OSError(errno.ENOSPC, "--disk-overlay is full")
            position = 0
            for number in numbers:
                start = offset + position - number * CLUSTER
                piece = data[position : position + CLUSTER - start]
                self._store(number, start, piece)
                position += len(piece)

    def _store(self, number: int, start: int, piece: bytes) -> None:
        cluster = self._clusters.get(number)
        if cluster is None:
            # The bits first: a reader on another thread must not take the zeros around for written ones.
            self._partial[number] = 0
            cluster = self._clusters[number] = bytearray(CLUSTER)
        cluster[start : start + len(piece)] = piece
        sectors = (1 << len(piece) // SECTOR) - 1 << start // SECTOR
        mask = self._partial.get(number, _ALL) | sectors
        if mask != _ALL:
            self._partial[number] = mask
        else:
            self._partial.pop(number, None)

    def has_any(self, offset: int, size: int) -> bool:
        """Whether something within a range was written, or beside it in the same cluster."""
        numbers = range(offset // CLUSTER, -(-(offset + size) // CLUSTER))
        return bool(self._clusters) and any(number in self._clusters for number in numbers)

    def pieces(self, offset: int, size: int) -> list[tuple[int, bytes]]:
        """What was written within a range: (position in the range, bytes), in order and without overlaps."""
        if not self._clusters:
            return []
        found = []
        for number in range(offset // CLUSTER, -(-(offset + size) // CLUSTER)):
            cluster = self._clusters.get(number)
            if cluster is None:
                continue
            base = number * CLUSTER
            for first, end in _runs(self._partial.get(number, _ALL)):
                start, stop = max(first, offset - base), min(end, offset + size - base)
                if start < stop:
                    found.append((base + start - offset, bytes(cluster[start:stop])))
        return found

    def state(self) -> bytes:
        """All that was written, for `restore`."""
        return b"".join(
            _CLUSTER.pack(number, self._partial.get(number, _ALL)) + cluster
            for number, cluster in sorted(self._clusters.items())
        )

    def restore(self, state: bytes, size: int) -> None:
        """Have what an overlay of a disk of `size` bytes had. ValueError for anything else."""
        length = _CLUSTER.size + CLUSTER
        if len(state) % length:
            raise ValueError("an overlay that is cut short")
        if len(state) // length * CLUSTER > self._limit:
            raise ValueError("an overlay that has no room")
        before = -1
        for start in range(0, len(state), length):
            number, mask = _CLUSTER.unpack_from(state, start)
            if not before < number < -(-size // CLUSTER) or not 0 < mask <= _ALL:
                raise ValueError("an overlay that cannot be")
            before = number
            self._clusters[number] = bytearray(state[start + _CLUSTER.size : start + length])
            if mask != _ALL:
                self._partial[number] = mask


def _runs(mask: int) -> list[tuple[int, int]]:
    """The runs of set bits, as (first byte, end) of the sectors that they stand for."""
    if mask == _ALL:
        return [(0, CLUSTER)]
    runs: list[tuple[int, int]] = []
    for index in range(_SECTORS):
        if not mask >> index & 1:
            continue
        start = index * SECTOR
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], start + SECTOR)
        else:
            runs.append((start, start + SECTOR))
    return runs
