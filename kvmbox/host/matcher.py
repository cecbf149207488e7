"""`--expect` and `--fail-on`: texts looked for in the guest's console output, in the order of the output.

Matching happens where the output is taken from the device, not where it is written to the host, so that a
text that the guest printed before it stopped has been seen before the stop is. All bytes are fed once; a
text may straddle any number of pieces.
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
    """Feeds on console output. `missing` are the expected texts not seen yet, `failure` the fatal one."""

    def __init__(self, expect: Sequence[bytes], fail_on: Sequence[bytes]) -> None:
        if any(not text for text in (*expect, *fail_on)):
            raise ValueError("an empty text would match anything")
        self.missing = list(dict.fromkeys(expect))
        self.failure: bytes | None = None
        self._expecting = bool(expect)
        self._fail_on = list(dict.fromkeys(fail_on))
        self._keep = max((len(text) for text in (*expect, *fail_on)), default=1) - 1
        self._tail = b""

    def feed(self, data: bytes) -> Match:
        """More output; the decision of the earliest text that ends in it. Feed no more once decided."""
        window = self._tail + data
        events: list[tuple[int, bool, bytes]] = []
        for texts, fatal in ((self.missing, False), (self._fail_on, True)):
            for text in texts:
                position = window.find(text)
                if position >= 0:
                    events.append((position + len(text), fatal, text))
        self._tail = window[-self._keep :] if self._keep else b""
        for _, fatal, text in sorted(events):
            if fatal:
                self.failure = text
                return Match.FAILED
            self.missing.remove(text)
            if not self.missing:
                return Match.EXPECTED
        return Match.UNDECIDED

    @property
    def unfulfilled(self) -> bool:
        """Whether texts were expected and some have not been seen."""
        return self._expecting and bool(self.missing)
