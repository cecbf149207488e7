"""`--expect` and `--fail-on`: search for texts in the console output of the guest, and on its screen.

The search happens when the output is received from the device, not when it is written to the host. So a text
that the guest printed before it stopped is found before the stop. Each byte is searched once, and a text may
be split into any number of pieces. A text counts if one port printed it, even if another port printed between
its bytes (some kernels write each character to two ports). A text also counts if it appears in the combined
output of all ports.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum


class Match(Enum):
    """What the output has decided."""

    UNDECIDED = "undecided"
    EXPECTED = "all expected texts seen"
    FAILED = "a text of --fail-on seen"


class ConsoleMatcher:
    """Searches console output. `missing`: the expected texts not found yet. `failure`: the fatal text."""

    def __init__(self, expect: Sequence[bytes], fail_on: Sequence[bytes]) -> None:
        if any(not text for text in (*expect, *fail_on)):
            raise ValueError("an empty text would match anything")
        self.missing = list(dict.fromkeys(expect))
        self.failure: bytes | None = None
        self._expecting = bool(expect)
        self._fail_on = list(dict.fromkeys(fail_on))
        self._keep = max((len(text) for text in (*expect, *fail_on)), default=1) - 1
        self._tail = b""
        self._tails: dict[str, bytes] = {}
        self._old: list[bytes] = []  # what was on the screen at first, and has not gone since

    def feed(self, data: bytes, port: str = "") -> Match:
        """More output of `port`; the decision of the earliest text that ends in it.

        Feed no more once decided.
        """
        tails = {self._tail, self._tails.get(port, b"")}
        events: list[tuple[int, bool, bytes]] = []
        for texts, fatal in ((self.missing, False), (self._fail_on, True)):
            for text in texts:
                ends = [
                    position + len(text) - len(tail)
                    for tail in tails
                    if (position := (tail + data).find(text)) >= 0
                ]
                if ends:
                    events.append((min(ends), fatal, text))
        self._tail = self._keep_of(self._tail + data)
        self._tails[port] = self._keep_of(self._tails.get(port, b"") + data)
        for _, fatal, text in sorted(events):
            if fatal:
                self.failure = text
                return Match.FAILED
            self.missing.remove(text)
            if not self.missing:
                return Match.EXPECTED
        return Match.UNDECIDED

    def look(self, screen: bytes) -> Match:
        """What is on the screen now. If it has a fatal text as well as an expected one, the fatal one counts,
        as nobody knows which was first.
        """
        self._old = [text for text in self._old if text in screen]
        for text in self._fail_on:
            if text in screen and text not in self._old:
                self.failure = text
                return Match.FAILED
        left = [text for text in self.missing if text not in screen or text in self._old]
        if left == self.missing:
            return Match.UNDECIDED
        self.missing[:] = left
        return Match.UNDECIDED if left else Match.EXPECTED

    def ignore(self, screen: bytes) -> None:
        """What is on the screen at first counts only when it is there again."""
        self._old = [text for text in (*self.missing, *self._fail_on) if text in screen]

    def _keep_of(self, output: bytes) -> bytes:
        """The end of `output` that may be the beginning of a text."""
        return output[-self._keep :] if self._keep else b""

    @property
    def unfulfilled(self) -> bool:
        """Whether texts were expected and some have not been seen."""
        return self._expecting and bool(self.missing)
