"""How often things happened over guest time: in one pass, and in bounded memory.

Where a recording ends is not known before it has been read. So all lanes have the same number of steps, and
the same length of a step. When a time lies beyond the last step, each lane adds up its steps in pairs, and
steps are twice as long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

STEPS: Final = 256
MOST_LANES: Final = 1024
"""A recording may come from a stranger, and name any number of devices and lines."""

DEVICE, PROCESS, LINE = "device", "process", "line"
"""What a lane is of: accesses of a device, requests to a process, rising edges of an interrupt output."""

Key = tuple[str, int, int, int]
"""What it is of; its channel; the index of the device there, and its pin, or 0."""


class Lanes:
    """`counts` has STEPS numbers of each key. `first` and `step` are ns of guest time."""

    def __init__(self) -> None:
        self.counts: dict[Key, list[int]] = {}
        self.first: int | None = None
        self.step = 1
        self.left_out = 0
        """What has no lane, as there are too many."""

    def add(self, key: Key, now: int, count: int = 1) -> None:
        """`count` more. Channels are not in step: a time may lie before the first one."""
        if self.first is None:
            self.first = now
        at = max(0, now - self.first) // self.step
        while at >= STEPS:
            at //= 2
            self.step *= 2
            for counts in self.counts.values():
                counts[:] = [*map(sum, zip(counts[::2], counts[1::2], strict=True)), *[0] * (STEPS // 2)]
        if key not in self.counts:
            if len(self.counts) == MOST_LANES:
                self.left_out += count
                return
            self.counts[key] = [0] * STEPS
        self.counts[key][at] += count

    @property
    def used(self) -> int:
        """The number of steps up to the last one with something in it, 1 at least."""
        return max((_used(counts) for counts in self.counts.values()), default=1)

    def of(self, what: str) -> list[tuple[Key, Sequence[int]]]:
        """The lanes of a kind, in the order of the board."""
        return sorted((key, counts) for key, counts in self.counts.items() if key[0] == what)


def _used(counts: Sequence[int]) -> int:
    return next(at for at in range(len(counts), 0, -1) if counts[at - 1])
