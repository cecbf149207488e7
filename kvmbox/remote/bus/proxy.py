"""The proxy of a device in another process: the bus reads and writes a proxy like the device itself.

The first word of each request and the largest value of each reply depend only on the size of the access. So
the proxy computes them once.
"""

from __future__ import annotations

import threading

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.remote.bus.routing import FastPath
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.channel.grants import leaves_room
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from kvmbox.remote.published.registers import Registers
    from kvmbox.remote.published.window_access import WindowAccess

ACCESS_SIZES = (1, 2, 4, 8)
WINDOW_SIZES = (2, 4)
"""The sizes in bytes of accesses that a window serves."""
_NO_QUEUES: Final[Mapping[int, Registers]] = {}


class DeviceProxy:
    """Device number `index` of the process behind `channel`. Thread-safe. Counts accesses for statistics."""

    __slots__ = (
        "_counting",
        "_queues",
        "_reads_of",
        "_wide",
        "_writes_of",
        "at_once",
        "channel",
        "index",
        "name",
        "natural_sizes",
        "reads",
        "window",
        "writes",
    )

    def __init__(
        self,
        channel: Channel,
        index: int,
        name: str,
        natural_sizes: frozenset[int],
        *,
        at_once: bool = True,
        window: WindowAccess | None = None,
        queues: Mapping[int, Registers] = _NO_QUEUES,
    ) -> None:
        """`at_once`: whether the accesses of one instruction may be one request; see `grants.leaves_room`.
        `window` makes accesses where there may be a window, and `queues`, by size, where queues are.
        """
        self.channel = channel
        self.index = index
        self.name = name
        self.natural_sizes = natural_sizes
        self.at_once = at_once
        self.reads = 0
        self.writes = 0
        self._counting = threading.Lock()
        self.window = window
        self._queues = queues
        self._reads_of = {size: self._fast_path(protocol.READ, size) for size in ACCESS_SIZES}
        self._writes_of = {size: self._fast_path(protocol.WRITE, size) for size in ACCESS_SIZES}
        self._wide: dict[int, WideProxy] = {}

    @classmethod
    def of(cls, channel: Channel, index: int, device: DeviceSpec) -> DeviceProxy:
        """The proxy of `device`."""
        window: WindowAccess | None = None
        queues: Mapping[int, Registers] = _NO_QUEUES
        media = channel.media(index)
        if media is not None and media.window is not None:
            from kvmbox.remote.published.window_access import window_access

            window = window_access(channel, index, media.window)
        if media is not None and media.queues is not None:
            from kvmbox.remote.published.queue_kinds import registers_of

            queues = registers_of(channel, index, media.queues)
        # Of a function, each byte that is written may be one that is noted.
        at_once = leaves_room(device) and device.pci is None
        sizes = device.natural_sizes
        return cls(channel, index, device.name, sizes, at_once=at_once, window=window, queues=queues)

    def _fast_path(self, kind: int, size: int) -> FastPath:
        word = request_word(kind, self.index, size)
        window = self.window if size in WINDOW_SIZES else None
        access = self.channel.access if window is None else window.access
        if size in self._queues:
            access = self._queues[size].access
        if kind == protocol.WRITE:
            return FastPath(access, word, 0)
        return FastPath(access, word, (1 << 8 * size) - 1, self.channel.steady if window is None else None)

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        """See RoutedDevice."""
        return (self._reads_of if is_read else self._writes_of)[size]

    def in_bytes(self, size: int) -> WideProxy:
        """See DirectDevice."""
        return self._wide.get(size) or self._wide.setdefault(size, WideProxy(self, size))

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """See DirectDevice. Raises DeviceProcessError."""
        self.count(True, count)
        if size in self._queues:
            return self._queues[size].read_string(offset, count)
        if self.window is not None and size in WINDOW_SIZES:
            return self.window.read_string(offset, size, count)
        return self.channel.read_string(self.index, offset, size, count)

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """See DirectDevice. Raises DeviceProcessError."""
        self.count(False, len(data) // size)
        if size in self._queues:
            self._queues[size].write_string(offset, data)
        elif self.window is not None and size in WINDOW_SIZES:
            self.window.write_string(offset, size, data)
        else:
            self.channel.write_string(self.index, offset, size, data)

    @staticmethod
    def with_index(word: int, register: int, byte: int) -> tuple[int, int]:
        """The word and the value of a read with `word` that carries a posted write of `byte` to `register`.

        Index and data, as a CMOS clock has them, are then one request instead of two.
        """
        return word ^ protocol.READ ^ protocol.INDEXED_READ, register << 32 | byte

    def count(self, is_read: bool, accesses: int) -> None:
        """See RoutedDevice."""
        with self._counting:
            if is_read:
                self.reads += accesses
            else:
                self.writes += accesses

    def read(self, offset: int, size: int) -> int:
        """What the guest reads: `size` bytes at `offset`. Raises DeviceProcessError."""
        self.count(True, 1)
        access, word, limit, _ = self._reads_of[size]
        return access(word, offset, 0, limit)

    def write(self, offset: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `offset`. Raises DeviceProcessError."""
        self.count(False, 1)
        access, word, _, _ = self._writes_of[size]
        access(word, offset, value, 0)

    def write_run(self, offset: int, data: bytes) -> None:
        """The guest has written the bytes of `data`, one after another, to `offset`. By the vCPU thread."""
        self.count(False, len(data))
        if len(data) == 1:
            access, word, _, _ = self._writes_of[1]
            access(word, offset, data[0], 0)
        else:
            self.channel.transact(protocol.WRITE_RUN, self.index, offset, data)

    def flush_run(self, offset: int, data: bytes) -> None:
        """The same by the main thread, which waits no longer than it may."""
        self.count(False, len(data))
        self.channel.request(protocol.WRITE_RUN, device=self.index, offset=offset, payload=data)

    def read_again(self, offset: int) -> None:
        """A read of `offset` that the guest has had already, and that was counted. By the vCPU thread."""
        access, word, limit, _ = self._reads_of[1]
        access(word, offset, 0, limit)

    def flush_read(self, offset: int) -> None:
        """The same by the main thread, which waits no longer than it may."""
        self.channel.request(protocol.READ, device=self.index, size=1, offset=offset, limit=0xFF)

    def write_pairs(self, offset: int, data: bytes) -> None:
        """The guest has written a byte to `offset` and one to the register behind it, over and over. By the
        vCPU thread. All of it is one request, of words.
        """
        self.count(False, len(data))
        self.channel.write_string(self.index, offset, 2, data)

    def flush_pairs(self, offset: int, data: bytes) -> None:
        """The same by the main thread, which waits no longer than it may."""
        self.count(False, len(data))
        self.channel.write_string(self.index, offset, 2, data, slices=REPLY_SLICES)

    def write_row(self, offset: int, data: bytes) -> None:
        """The guest has written a byte to each register from `offset` on, in their order: all of `data`, of 8
        bytes at most. By the vCPU thread.
        """
        self.count(False, len(data))
        self.channel.write_wide(self.index, offset, data)

    def flush_row(self, offset: int, data: bytes) -> None:
        """The same by the main thread, which waits no longer than it may."""
        self.count(False, len(data))
        self.channel.write_wide(self.index, offset, data, REPLY_SLICES)


class WideProxy:
    """The same device for accesses of `size` bytes, each of which is a byte access of its own.

    All of them are one request (`wire.access_blocks`). As they are counted one by one, this is not the device
    itself to the run loop, and carries no posted index write along (`run.vcpu.coalesced_ring`).
    """

    __slots__ = ("_device", "_read", "_size", "_write", "channel")

    def __init__(self, device: DeviceProxy, size: int) -> None:
        self.channel = device.channel
        self._device = device
        self._size = size
        read = request_word(protocol.READ_WIDE, device.index, size)
        write = request_word(protocol.WRITE_WIDE, device.index, size)
        self._read = FastPath(self.channel.access, read, (1 << 8 * size) - 1, self.channel.steady)
        self._write = FastPath(self.channel.access, write, 0)

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        """See RoutedDevice."""
        assert size == self._size
        return self._read if is_read else self._write

    def count(self, is_read: bool, accesses: int) -> None:
        """See RoutedDevice."""
        self._device.count(is_read, self._size * accesses)

    def read(self, offset: int) -> int:
        """See InBytes. Raises DeviceProcessError."""
        self.count(True, 1)
        access, word, limit, _ = self._read
        return access(word, offset, 0, limit)

    def write(self, offset: int, value: int) -> None:
        """See InBytes. Raises DeviceProcessError."""
        self.count(False, 1)
        access, word, _, _ = self._write
        access(word, offset, value, 0)
