"""Medians and what they are worth: pure functions of lists of numbers.

The interval
------------
Timings on a shared machine are skewed, and a round disturbed by somebody else is far out. So nothing here
assumes a distribution. The interval of a median is the one of order statistics: of n independent samples,
sorted as x(1) ≤ … ≤ x(n), the true median lies outside of [x(k), x(n+1-k)] exactly if fewer than k samples
fall on one side of it, and each sample falls there with probability 1/2:

    coverage(n, k) = 1 - 2 · Σ (i = 0 … k-1) C(n, i) / 2^n

`interval` takes the largest k whose coverage is at least the confidence that was asked for, and k = 1, the
whole range, where even that covers less (n < 6 for 95 %). With the default of 7 rounds it is the whole range,
98.4 %. The coverage that is reached is part of the result.

Noise
-----
A median is *noisy* if its interval is wider than NOISY_WIDTH of the median, or if the earlier and the later
half of its samples do not overlap and their medians differ by more than DRIFT: the host changed meanwhile. A
noisy number is shown with its mark, never left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb
from typing import Final

from kvmbox.base.value_classes import Value

CONFIDENCE: Final = 0.95
NOISY_WIDTH: Final = 0.10
"""An interval wider than this part of its median is marked."""
DRIFT: Final = 0.05
"""Halves further apart than this part of the median are marked, if they do not overlap."""
MIN_FOR_DRIFT: Final = 6
"""Fewer samples say nothing about drift: three and three that do not overlap are chance once in ten."""


def median(values: Sequence[float]) -> float:
    """The middle value, or the mean of the two in the middle. ValueError if there is none."""
    if not values:
        raise ValueError("no median of nothing")
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return (ordered[middle - 1] + ordered[middle]) / 2


def coverage(count: int, k: int) -> float:
    """The probability that the true median lies in [x(k), x(count+1-k)]; see the module."""
    outside = 2 * sum(comb(count, i) for i in range(k))
    return 1.0 - float(outside / (1 << count))


class Estimate(Value):
    """A median with its interval. `covered` is the probability that the interval holds the true median.

    `noise` says in a few words why the number should not be trusted, or is empty.
    """

    median: float
    low: float
    high: float
    covered: float
    count: int
    noise: str = ""

    def overlaps(self, other: Estimate) -> bool:
        """Whether the two intervals have a value in common."""
        return self.low <= other.high and other.low <= self.high


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, high, coverage) of the median of `values`, which are in no order; see the module."""
    ordered = sorted(values)
    count = len(ordered)
    if not ordered:
        raise ValueError("no interval of nothing")
    k = 1
    while 2 * (k + 1) <= count and coverage(count, k + 1) >= CONFIDENCE:
        k += 1
    return ordered[k - 1], ordered[count - k], coverage(count, k)


def drifted(values: Sequence[float]) -> bool:
    """Whether the earlier and the later half of `values`, which are in the order of time, disagree."""
    if len(values) < MIN_FOR_DRIFT:
        return False
    half = len(values) // 2
    before, after = values[:half], values[len(values) - half :]
    if max(before) >= min(after) and max(after) >= min(before):
        return False
    return abs(median(after) - median(before)) > DRIFT * abs(median(values))


def estimate(values: Sequence[float]) -> Estimate:
    """The median of `values`, in the order of time, its interval, and whether it is noisy."""
    middle = median(values)
    low, high, covered = interval(values)
    noise = []
    if high - low > NOISY_WIDTH * abs(middle):
        noise.append("wide")
    if drifted(values):
        noise.append("drifts")
    return Estimate(middle, low, high, covered, len(values), ", ".join(noise))


def differences(values: Sequence[float | None], references: Sequence[float | None]) -> list[float]:
    """value − reference, round by round; rounds in which either is missing are left out."""
    return [
        value - reference
        for value, reference in zip(values, references, strict=False)
        if value is not None and reference is not None
    ]


def ratios(values: Sequence[float | None], references: Sequence[float | None]) -> list[float]:
    """value ÷ reference, round by round; rounds in which either is missing are left out."""
    return [
        value / reference
        for value, reference in zip(values, references, strict=False)
        if value is not None and reference is not None and reference > 0
    ]
