"""The accesses to a device that may have a window: the window serves them, or else the device.

The lock of the channel is held while the window is looked at. What follows from its end (`MOVED`, and what
the model makes of it) is done before the access is: a string that goes beyond the end of one window goes on
in the next one, if the model has opened one by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from kvmbox.base.compiled import kind
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.remote.published.data_window import CLOSED, DataWindow
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word

_Moved = TypeVar("_Moved", bytes, int)


class WindowAccess:
    """Device number `index` behind `channel`, and its window. By vCPU threads."""

    def __init__(self, channel: Channel, index: int, window: DataWindow) -> None:
        self.channel = channel
        self.window = window
        self._index = index

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """As `Channel.access`, for an access of 2 or 4 bytes. Raises DeviceProcessError."""
        asked, size = word & 0xFF, word >> 16 & 0xFF
        if asked == protocol.INDEXED_READ:  # the write that it carries may be about the window
            posted = request_word(protocol.WRITE, self._index, 1)
            self._ask(posted, value >> 32, value & 0xFF, 0)
            word, asked, value = word ^ protocol.READ ^ protocol.INDEXED_READ, protocol.READ, 0
        if offset == self.window.register:
            if asked == protocol.READ:
                if found := self._read(size, 1):
                    return int.from_bytes(found, "little")
            elif self._write(size, value.to_bytes(size, "little")):
                return 0
        return self._ask(word, offset, value, limit)

    def _ask(self, word: int, offset: int, value: int, limit: int) -> int:
        return self.channel.access(word, offset, value, limit)

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """See DirectDevice. Raises DeviceProcessError."""
        data = b""
        while left := count - len(data) // size:
            found = self._read(size, left) if offset == self.window.register else b""
            data += found or self.channel.read_string(self._index, offset, size, left, until=self._is_open)
        return data

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """See DirectDevice. Raises DeviceProcessError."""
        while data:
            taken = self._write(size, data) if offset == self.window.register else 0
            if not taken:
                taken = self.channel.write_string(self._index, offset, size, data, until=self._is_open)
            data = data[taken:]

    def _is_open(self) -> bool:
        return self.window.use != CLOSED

    def _read(self, size: int, count: int) -> bytes:
        return self._serve(lambda: self.window.read_string(size, count))

    def _write(self, size: int, data: bytes) -> int:
        return self._serve(lambda: self.window.write_string(size, data))

    def _serve(self, act: Callable[[], _Moved]) -> _Moved:
        """What `act` moves through the window, with what follows from that."""
        found: list[_Moved] = []

        def under_lock() -> Sequence[FollowUp]:
            found.append(act())
            return self.window.end_if_over()

        self.channel.serve(under_lock)
        return found[0]


def window_access(channel: Channel, index: int, window: DataWindow) -> WindowAccess:
    """What makes such accesses, of the chosen half."""
    return kind(WindowAccess, "window", "CompiledWindowAccess")(channel, index, window)
