"""Choices that are read from bytes, so that a fuzzer which changes the bytes changes the choices."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, TypeVar

MOST_DRAWN: Final = 64
"""How many bytes `randbytes` takes: more repeat them."""

_Item = TypeVar("_Item")


class Dice(random.Random):
    """What `random.Random` offers, out of `data`. Behind its end everything is zero, and `ended` is true."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        """Whether all bytes were used."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """The next byte."""
        at = self._at
        self._at = at + 1
        return self._data[at] if at < len(self._data) else 0

    def number(self, size: int) -> int:
        """The next `size` bytes, little-endian."""
        at = self._at
        self._at = at + size
        return int.from_bytes(self._data[at : at + size], "little")

    def rest(self) -> bytes:
        """All bytes that are left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]

    def random(self) -> float:
        return self.number(2) / 65536

    def getrandbits(self, k: int, /) -> int:
        return self.number(-(-k // 8)) & (1 << k) - 1

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        first, end = (0, start) if stop is None else (start, stop)
        count = -(-(end - first) // step)
        if count <= 0:
            raise ValueError("nothing to choose from")
        return first + step * (self.number(max(1, (count - 1).bit_length() + 7 >> 3)) % count)

    def randint(self, a: int, b: int) -> int:
        return self.randrange(a, b + 1)

    def choice(self, seq: Any) -> Any:
        return seq[self.randrange(len(seq))]

    def some(self, seq: Sequence[_Item]) -> _Item:
        """One of them: `choice` with its type."""
        return seq[self.randrange(len(seq))]

    def randbytes(self, n: int) -> bytes:
        at = self._at
        self._at = at + min(n, MOST_DRAWN)
        piece = self._data[at : self._at].ljust(min(n, MOST_DRAWN), b"\0")
        return piece if n <= MOST_DRAWN else (piece * (n // MOST_DRAWN + 1))[:n]
