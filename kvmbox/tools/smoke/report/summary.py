"""What a session came to: counts, and the exit status of `kvmbox smoke`. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from kvmbox.base.outcome import CLEAN, INTERRUPTED, UNEXPECTED
from kvmbox.base.value_classes import Value
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict

PASSED: Final = CLEAN
FAILED: Final = UNEXPECTED
NOTHING_TESTED: Final = 16
"""No test passed, and none failed: nothing is proven. An empty suite must not look like a good one."""


class Summary(Value):
    """All results of a session, in the suite's order; its wall time, and why it ended early, if it did.

    `interrupted`: a signal ended it.
    """

    results: tuple[TestResult, ...]
    seconds: float
    stopped: str | None = None
    interrupted: bool = False

    def count(self, *verdicts: Verdict) -> int:
        """How many tests have one of these verdicts."""
        counts = Counter(result.verdict for result in self.results)
        return sum(counts[verdict] for verdict in verdicts)

    @property
    def failures(self) -> list[TestResult]:
        """The results that fail the session."""
        return [result for result in self.results if result.verdict.is_failure]

    @property
    def boots(self) -> int:
        """How many boots ended."""
        return sum(result.boots for result in self.results)

    @property
    def status(self) -> int:
        """The exit status: 0 only if every test that ran passed, and one at least ran and passed."""
        if self.interrupted:
            return INTERRUPTED
        if self.failures:
            return FAILED
        if not self.count(Verdict.PASS):
            return NOTHING_TESTED
        return PASSED

    @property
    def words(self) -> str:
        """The counts in words: "3 passed, 1 failed (1 timeout), 2 skipped"."""
        parts = []
        if passed := self.count(Verdict.PASS):
            parts.append(f"{passed} passed")
        if failures := self.failures:
            kinds = Counter(result.verdict for result in failures)
            named = ", ".join(
                f"{kinds[one]} {one.value}" for one in Verdict if one is not Verdict.FAIL and kinds[one]
            )
            parts.append(f"{len(failures)} failed" + (f" ({named})" if named else ""))
        for verdict, word in (
            (Verdict.TOLERATED, "tolerated"),
            (Verdict.SKIP, "skipped"),
            (Verdict.NOT_RUN, "not run"),
        ):
            if number := self.count(verdict):
                parts.append(f"{number} {word}")
        return ", ".join(parts) or "no test"


def in_order(results: Sequence[TestResult], keys: Sequence[str]) -> tuple[TestResult, ...]:
    """The results in the order of the tests' keys."""
    place = {key: number for number, key in enumerate(keys)}
    return tuple(sorted(results, key=lambda result: place[result.test.key]))
