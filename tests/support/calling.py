"""A transport to a process that is no process: whoever plays it is called."""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.remote.transport.interface import NO_HEADER, EndedError, Transport, Waits, Words
from kvmbox.wire.protocol import WORDS


class GoneError(Exception):
    """Raised by a process that ends instead of answering."""


class CallingTransport(Transport):
    """`answer` gives the reply to each frame, or raises GoneError. As a link it leads to itself."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._answer = answer
        self._frame = b""

    def open(self, device_type: str, waits: Waits) -> Transport:
        """See Opens."""
        del device_type, waits
        return self

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        self._frame = self.exchange(WORDS.pack(first, now, value, offset_and_length), None)
        return NO_HEADER

    def payload(self, words: Words) -> bytes:
        assert words is NO_HEADER
        return self._frame

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        try:
            return self._answer(sent)
        except GoneError:
            raise EndedError("its channel ended") from None
