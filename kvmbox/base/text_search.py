"""Searches texts in the console output of the guest, and on its screen. Pure.

The search happens when the output is received from the device, not when it is written to the host. So a text
that the guest printed before it stopped is found before the stop. Each byte is searched once, and a text may
be split into any number of pieces. A text counts if one port printed it, even if another port printed between
its bytes (some kernels write each character to two ports). A text also counts if it appears in the combined
output of all ports.
"""

from __future__ import annotations

from collections.abc import Sequence


class TextSearch:
    """Searches `texts` until each has been found once."""

    def __init__(self) -> None:
        self._texts: list[bytes] = []
        self._keep = 0
        self._tail = b""
        self._tails: dict[str, bytes] = {}
        self._old: list[bytes] = []  # what was on the screen at first, and has not gone since

    def add(self, text: bytes) -> None:
        """Search this text, too, from now on. ValueError if it is empty."""
        if not text:
            raise ValueError("an empty text would match anything")
        if text not in self._texts:
            self._texts.append(text)
            self._keep = max(self._keep, len(text) - 1)

    def __bool__(self) -> bool:
        """Whether a text is left to search."""
        return bool(self._texts)

    def feed(self, data: bytes, port: str = "") -> list[tuple[int, list[bytes]]]:
        """More output of `port`. Where in `data` texts end that are found now, in order, and these texts."""
        found: dict[int, list[bytes]] = {}
        for text in self._texts:
            ends = [
                position + len(text) - len(tail)
                for tail in {self._tail, self._tails.get(port, b"")}
                if (position := (tail + data).find(text, max(0, len(tail) - len(text) + 1))) >= 0
            ]
            if ends:
                found.setdefault(min(ends), []).append(text)
        self._tail = self._keep_of(self._tail + data)
        self._tails[port] = self._keep_of(self._tails.get(port, b"") + data)
        for texts in found.values():
            self._forget(texts)
        return sorted(found.items())

    def look(self, screen: bytes) -> list[bytes]:
        """The texts that are found on the screen now."""
        self._old = [text for text in self._old if text in screen]
        found = [text for text in self._texts if text in screen and text not in self._old]
        self._forget(found)
        return found

    def ignore(self, screen: bytes) -> None:
        """What is on the screen at first counts only when it is there again."""
        self._old = [text for text in self._texts if text in screen]

    def _forget(self, found: Sequence[bytes]) -> None:
        self._texts = [text for text in self._texts if text not in found]

    def _keep_of(self, output: bytes) -> bytes:
        """The end of `output` that may be the beginning of a text."""
        return output[-self._keep :] if self._keep else b""
