"""The device process's end of a socket or of two pipes: one read is one request, one write is one reply."""

from __future__ import annotations

import os

from kvmbox.jail.server import NO_HEADER
from kvmbox.wire.protocol import HEADER, MAX_FRAME, WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from kvmbox.jail.server import Answer, Words

_HEADER_SIZE: Final = HEADER.size
_pack: Final = WORDS.pack
_unpack: Final = WORDS.unpack


class StreamPort:
    """See `serving_loop.Port`. Requests come from one descriptor, replies go to another or the same."""

    def __init__(
        self,
        requests: int,
        replies: int,
        *,
        read: Callable[[int, int], bytes] = os.read,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self._requests = requests
        self._replies = replies
        self._read = read
        self._write = write
        self._frame = b""

    def next_request(self) -> Words | None:
        """See Port."""
        frame = self._frame = self._read(self._requests, MAX_FRAME)
        if len(frame) == _HEADER_SIZE:
            return _unpack(frame)
        if not frame:
            return None
        if len(frame) < _HEADER_SIZE:
            return NO_HEADER
        words: Words = WORDS.unpack_from(frame)
        return words if words[3] >> 32 else NO_HEADER

    def frame(self, words: Words) -> bytes:
        """See Port."""
        return self._frame

    def reply(self, answer: Answer) -> None:
        """See Port."""
        first, deadline, value, steady, payload = answer
        if payload:
            self._write(self._replies, _pack(first, deadline, value, len(payload) << 32) + payload)
        else:
            self._write(self._replies, _pack(first, deadline, value, steady))

    def leave(self) -> None:
        """See Port: the end of the descriptors tells it."""
