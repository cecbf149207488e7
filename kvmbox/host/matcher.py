"""`--expect` and `--fail-on`: texts looked for in the guest's console output, in the order of the output.

Matching happens where the output is taken from the device, not where it is written to the host, so that a
text that the guest printed before it stopped has been seen before the stop is. All bytes are fed once; a
text may straddle any number of pieces. It counts if one port printed it, also where another one printed
between its bytes (a kernel that writes each character to two ports), and if it stands in the order of all
output.
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
        self._tails: dict[str, bytes] = {}

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

    def _keep_of(self, output: bytes) -> bytes:
        """What of its end may be the beginning of a text."""
        return output[-self._keep :] if self._keep else b""

    @property
    def unfulfilled(self) -> bool:
        """Whether texts were expected and some have not been seen."""
        return self._expecting and bool(self.missing)
