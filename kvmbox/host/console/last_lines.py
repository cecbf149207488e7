"""What a port has printed, for a page: all of it, or its beginning and its end."""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value

HEAD: Final = 1 << 13
KEPT: Final = 1 << 15
"""How many bytes are kept of the beginning and of the end."""


class Excerpt(Value):
    """The beginning and the end; `cut` bytes between them are not kept."""

    head: bytes
    cut: int
    tail: bytes


class Tail:
    """By one thread at a time. What a deque of pieces has of the same name."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._cut = 0

    def append(self, data: bytes) -> None:
        """A piece more."""
        room = HEAD - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        excess = max(0, len(self._tail) - KEPT)
        self._cut += excess
        del self._tail[:excess]

    def copy(self) -> tuple[bytes, ...]:
        """The end of it, as much as is kept."""
        return (bytes(self._tail),) if self._cut else (bytes(self._head), bytes(self._tail))

    @property
    def excerpt(self) -> Excerpt:
        """All that is kept."""
        return Excerpt(bytes(self._head), self._cut, bytes(self._tail))


def excerpt(output: bytes) -> Excerpt:
    """What is kept of all that a port has printed."""
    tail = Tail()
    tail.append(output)
    return tail.excerpt
