"""What the bench guest prints: lines to numbers (guests/bench.c).

    bench NAME iterations=N cycles=TOTAL [ticks=PIT]
    bench NAME samples=N min=A p50=B p90=C p99=D max=E

A test that ran several times has as many lines. With `ticks`, each iteration contains that many clocks of
the PIT, which are no cost: they were asked for. All cycles are of the guest's time-stamp counter, which runs
at the host's rate. A line may stand behind characters that a measurement itself has printed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from kvmbox.tools.bench.statistics import median

HOLDING: Final = b"bench holding"
"""Printed when the guest of `hold` is idle from now on."""

_LINE: Final = re.compile(rb"bench (\w+)((?: \w+=\d{1,20})+)[ \r]*\n")
_PAIR: Final = re.compile(rb" (\w+)=(\d+)")


@dataclass(slots=True)
class Measured:
    """One test: the mean cycles of an iteration, once per pass; `spread` has min, p50, p90, p99 and max of
    single ones. `ticks` are the PIT clocks within an iteration.
    """

    means: list[float] = field(default_factory=list)
    spread: dict[str, int] = field(default_factory=dict)
    ticks: int = 0

    def value(self, what: str) -> float | None:
        """`what`: "mean" (the median of all passes), a name of the spread, or the quotient "A/B" of two;
        None if it was not measured.
        """
        if what == "mean":
            return median(self.means) if self.means else None
        above, _, below = what.partition("/")
        number = self.spread.get(above)
        if number is None or not below:
            return number
        divisor = self.spread.get(below)
        return number / divisor if divisor else None


def parse(output: bytes) -> dict[str, Measured]:
    """Test → what was measured of it. Lines that say nothing, or of no iterations, give nothing."""
    found: dict[str, Measured] = {}
    for line in _LINE.finditer(output):
        numbers = {key.decode(): int(value) for key, value in _PAIR.findall(line[2])}
        keys = ("iterations", "cycles", "samples", "ticks")
        iterations, cycles, samples, ticks = (numbers.pop(key, 0) for key in keys)
        measured = found.setdefault(line[1].decode(), Measured())
        if iterations:
            measured.means.append(cycles / iterations)
            measured.ticks = ticks
        if samples:
            measured.spread = numbers
    return found
