"""What reporters hear of a session. Each does nothing by default."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.base.value_classes import Value
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Attempt, Test, TestResult


class Plan(Value):
    """What is to be done: the tests, in order; boots of each; how many at a time; which part of a whole."""

    tests: tuple[Test, ...]
    repeat: int = 1
    slots: int = 1
    shard: str | None = None
    deselected: int = 0

    def label(self, test: Test) -> str:
        """What reports call a test: its name alone, where that says which test it is."""
        return test.key if len({one.suite for one in self.tests}) > 1 else test.name


class Reporter:
    """Hears everything in this order: `begin`, then boots, attempts, results and ticks, then `end`.

    It gives the texts that it makes of that to `write`.

    Every test of the plan has a result before `end`, whatever happened. Methods may raise OSError, or
    HostOutputError with better words: the session then ends.
    """

    def __init__(self, write: Callable[[str], None] = lambda _text: None) -> None:
        self._write = write
        self._plan = Plan(())

    def begin(self, plan: Plan) -> None:
        """The session begins: from now on it is known what tests are called."""
        self._plan = plan

    def boot(self, test: Test) -> None:
        """A boot of `test` begins now."""

    def attempt(self, test: Test, attempt: Attempt) -> None:
        """A boot of `test` has ended, and it may have further ones."""

    def result(self, result: TestResult) -> None:
        """What became of a test."""

    def tick(self, running: Sequence[Test], seconds_left: float | None) -> None:
        """A fraction of a second has passed. `seconds_left` is a guess, None where there is none."""

    def end(self, summary: Summary) -> None:
        """The session has ended."""

    def close(self) -> None:
        """Nothing more comes, also where a failure of kvmbox itself ended the session. Never raises."""
