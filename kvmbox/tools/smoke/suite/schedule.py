"""Which tests of a suite are run, in which order, and in which shard. Pure."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.tools.smoke.suite.test_case import Test

MOST_SHARDS: Final = 10_000


class Shard(Value):
    """One of `count` parts of a session, `number` from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """'I/N'. Raises UsageError."""
        if found := re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text):
            shard = cls(int(found[1]), int(found[2]))
            if 1 <= shard.number <= shard.count <= MOST_SHARDS:
                return shard
        raise UsageError(
            f"--shard '{text}' is not I/N with I from 1 to N", hint="the first of four machines runs 1/4"
        )


def select(tests: Sequence[Test], groups: Sequence[str] = (), filters: Sequence[str] = ()) -> list[Test]:
    """The tests that are in one of the groups and match one of the filters, where any are given.

    A filter is a part of a test's name, or a shell pattern for the whole name. Tests that are marked for
    manual runs become skipped ones where neither a group nor a filter asks for them. Raises UsageError for a
    group or a filter without any test: a misspelt one would test nothing.
    """
    known = {group for test in tests for group in test.groups}
    for group in groups:
        if group not in known:
            raise UsageError(
                f"--group '{group}' has no test",
                hint=f"the groups are: {', '.join(sorted(known))}" if known else "no test is in a group",
            )
    for text in filters:
        if not any(_matches(test, text) for test in tests):
            raise UsageError(f"--filter '{text}' matches no test", hint="--list shows the names")
    chosen = [
        test
        for test in tests
        if (not groups or set(groups) & set(test.groups))
        and (not filters or any(_matches(test, text) for text in filters))
    ]
    if groups or filters:
        return chosen
    return [test if test.manual is None else test.replaced(skip=test.skip or test.manual) for test in chosen]


def _matches(test: Test, text: str) -> bool:
    if any(one in text for one in "*?["):
        return fnmatch.fnmatchcase(test.name, text) or fnmatch.fnmatchcase(test.key, text)
    return text in test.name or text == test.key


def take_shard(tests: Sequence[Test], shard: Shard, seconds: Mapping[str, float]) -> list[Test]:
    """The part of `tests` that `shard` runs: parts that take about the same time, in the suite's order.

    `seconds` are durations by key; tests without one are assumed to take the median. Every shard computes the
    same parts from the same tests and durations: the longest test goes to the shard with the least to do.
    """
    known = [seconds[test.key] for test in tests if test.key in seconds]
    typical = median(known) if known else 1.0
    cost = {test.key: seconds.get(test.key, typical) for test in tests}
    totals = [0.0] * shard.count
    part: dict[str, int] = {}
    for test in sorted(tests, key=lambda test: (-cost[test.key], test.key)):
        least = min(range(shard.count), key=lambda number: (totals[number], number))
        part[test.key] = least + 1
        totals[least] += cost[test.key]
    return [test for test in tests if part[test.key] == shard.number]


def failures_first(tests: Sequence[Test], failed: frozenset[str] | set[str]) -> list[Test]:
    """Those that failed last time, then the others; each in the suite's order."""
    return sorted(tests, key=lambda test: test.key not in failed)


def seconds_left(
    waiting: Sequence[Test], running: int, slots: int, seconds: Mapping[str, float], typical: float | None
) -> float | None:
    """How long the tests that wait will take, as far as one can tell; None where nothing is known.

    `typical` is what a test of this session took so far. Of a running one, half is assumed to be done.
    """
    known = [seconds[test.key] for test in waiting if test.key in seconds]
    guess = typical if typical is not None else (median(known) if known else None)
    if guess is None:
        return None
    total = sum(seconds.get(test.key, guess) for test in waiting) + running * guess / 2
    return total / max(slots, 1)
