"""The end of what a port has printed, for a report that shows more than its last line."""

from __future__ import annotations

from typing import Final

KEPT: Final = 1 << 15
"""How many bytes are kept."""


class Tail:
    """By one thread at a time. What a deque of pieces has of the same name."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def append(self, data: bytes) -> None:
        """A piece more."""
        self._kept += data
        del self._kept[:-KEPT]

    def copy(self) -> tuple[bytes, ...]:
        """What is kept, in one piece."""
        return (bytes(self._kept),)
