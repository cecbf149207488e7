"""The proxy of a device in another process: the bus reads and writes a proxy like the device itself.

The first word of each request and the largest value of each reply depend only on the size of the access. So
the proxy computes them once.
"""

from __future__ import annotations

import threading

from kvmbox.bus import FastPath
from kvmbox.channel.channel import Channel
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word

ACCESS_SIZES = (1, 2, 4, 8)


class DeviceProxy:
    """Device number `index` of the process behind `channel`. Thread-safe. Counts accesses for statistics."""

    __slots__ = (
        "_counting",
        "_reads_of",
        "_writes_of",
        "channel",
        "index",
        "name",
        "natural_sizes",
        "reads",
        "writes",
    )

    def __init__(self, channel: Channel, index: int, name: str, natural_sizes: frozenset[int]) -> None:
        self.channel = channel
        self.index = index
        self.name = name
        self.natural_sizes = natural_sizes
        self.reads = 0
        self.writes = 0
        self._counting = threading.Lock()
        self._reads_of = {size: self._fast_path(protocol.READ, size) for size in ACCESS_SIZES}
        self._writes_of = {size: self._fast_path(protocol.WRITE, size) for size in ACCESS_SIZES}

    def _fast_path(self, kind: int, size: int) -> FastPath:
        word = request_word(kind, self.index, size)
        return FastPath(
            self.channel.access_for(word), word, (1 << 8 * size) - 1 if kind == protocol.READ else 0
        )

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        """See DirectDevice."""
        return (self._reads_of if is_read else self._writes_of)[size]

    @staticmethod
    def with_index(word: int, register: int, byte: int) -> tuple[int, int]:
        """The word and the value of a read with `word` that carries a posted write of `byte` to `register`.

        Index and data, as a CMOS clock has them, are then one request instead of two.
        """
        return word ^ protocol.READ ^ protocol.INDEXED_READ, register << 32 | byte

    def count(self, is_read: bool, accesses: int) -> None:
        """See DirectDevice."""
        with self._counting:
            if is_read:
                self.reads += accesses
            else:
                self.writes += accesses

    def read(self, offset: int, size: int) -> int:
        """What the guest reads: `size` bytes at `offset`. Raises DeviceProcessError."""
        self.count(True, 1)
        access, word, limit = self._reads_of[size]
        return access(word, offset, 0, limit)

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `offset`. Raises DeviceProcessError."""
        self.count(False, 1)
        access, word, _ = self._writes_of[size]
        access(word, offset, value, 0)

    def write_run(self, offset: int, data: bytes) -> None:
        """The guest has written the bytes of `data`, one after another, to `offset`. By the vCPU thread."""
        self.count(False, len(data))
        if len(data) == 1:
            access, word, _ = self._writes_of[1]
            access(word, offset, data[0], 0)
        else:
            self.channel.transact(protocol.WRITE_RUN, self.index, offset, data)

    def flush_run(self, offset: int, data: bytes) -> None:
        """The same by the main thread, which waits no longer than it may."""
        self.count(False, len(data))
        self.channel.request(protocol.WRITE_RUN, device=self.index, offset=offset, payload=data)
