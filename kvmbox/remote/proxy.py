"""A device in another process, as the bus sees it: it reads and writes like the device itself.

The first word of each request and the largest value of each reply are the same for every access of one
size, so they are computed here, once.
"""

from __future__ import annotations

from kvmbox.remote import protocol
from kvmbox.remote.channel import Channel, request_word

ACCESS_SIZES = (1, 2, 4, 8)


class DeviceProxy:
    """Device number `index` of the process behind `channel`. Counts its accesses for statistics."""

    __slots__ = (
        "_access",
        "_limits",
        "_read_words",
        "_write_words",
        "name",
        "reads",
        "whole_sizes",
        "writes",
    )

    def __init__(self, channel: Channel, index: int, name: str, whole_sizes: frozenset[int]) -> None:
        self.name = name
        self.whole_sizes = whole_sizes
        self.reads = 0
        self.writes = 0
        self._access = channel.access
        self._read_words = {size: request_word(protocol.READ, index, size) for size in ACCESS_SIZES}
        self._write_words = {size: request_word(protocol.WRITE, index, size) for size in ACCESS_SIZES}
        self._limits = {size: (1 << 8 * size) - 1 for size in ACCESS_SIZES}

    def read(self, offset: int, size: int) -> int:
        """What the guest reads: `size` bytes at `offset`. Raises DeviceProcessError."""
        self.reads += 1
        return self._access(self._read_words[size], offset, 0, self._limits[size])

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `offset`. Raises DeviceProcessError."""
        self.writes += 1
        self._access(self._write_words[size], offset, value, 0)
