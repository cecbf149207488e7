"""Lines for people, where there is no terminal or no rich: what is about to run, verdicts, and a sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.safe_text import in_seconds, printable, tail
from kvmbox.tools.smoke.report.summary import NOTHING_TESTED, Summary
from kvmbox.tools.smoke.suite.test_case import Attempt, Test, TestResult, Verdict

WORDS: Final = {verdict: verdict.value.upper() for verdict in Verdict}
_WIDTH: Final = max(map(len, WORDS.values()))


class PlainReporter(Reporter):
    """Gives each line, without its end, to `write`.

    `again` gives the command that runs a failed test alone. `quiet` leaves out what is about to run, and
    what passed.
    """

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        again: Callable[[Test], str] | None = None,
        quiet: bool = False,
    ) -> None:
        super().__init__(write)
        self._again = again
        self._quiet = quiet
        self._begun: set[str] = set()

    def begin(self, plan: Plan) -> None:
        """What is to be done."""
        super().begin(plan)
        self._write(headline(plan))

    def boot(self, test: Test) -> None:
        """The test that is about to run: if the machine hangs now, this is the last line."""
        if not self._quiet and test.key not in self._begun:
            self._begun.add(test.key)
            self._write(f"{'RUN':<{_WIDTH}}  {printable(self._plan.label(test))}")

    def attempt(self, test: Test, attempt: Attempt) -> None:
        """A boot that failed, of a test with retries."""
        if not self._quiet and attempt.judgement.verdict.is_failure and test.retries:
            words = f"{attempt.judgement.verdict.value}: {printable(attempt.judgement.reason)}"
            self._write(f"{'':<{_WIDTH}}  {printable(self._plan.label(test))}: {words}")

    def result(self, result: TestResult) -> None:
        """What became of a test, with all that helps where it failed."""
        if self._quiet and not result.verdict.is_failure:
            return
        for line in result_lines(result, self._plan, self._again):
            self._write(line)

    def tick(self, running: Sequence[Test], seconds_left: float | None) -> None:
        """Nothing: lines that stay are no place for progress."""

    def end(self, summary: Summary) -> None:
        """The failures again, if there were many lines; then the sum."""
        for line in end_lines(summary, self._plan):
            self._write(line)


def headline(plan: Plan) -> str:
    """What is to be done, in a line."""
    count = len(plan.tests)
    words = f"{count} test{'s' * (count != 1)}"
    if plan.repeat > 1:
        words += f", {plan.repeat} boots each"
    words += f", {plan.slots} at a time" if plan.slots > 1 else ""
    words += f", shard {plan.shard}" if plan.shard else ""
    return words + (f" ({plan.deselected} deselected)" if plan.deselected else "")


def result_lines(result: TestResult, plan: Plan, again: Callable[[Test], str] | None = None) -> list[str]:
    """A result as lines: verdict, name, time, reason; for a failure its console and how to run it again."""
    time = f"  {in_seconds(result.seconds)}" if result.boots else ""
    reason = f"  {printable(result.reason)}" if result.reason else ""
    lines = [f"{WORDS[result.verdict]:<{_WIDTH}}  {printable(plan.label(result.test))}{time}{reason}"]
    if not result.verdict.is_failure or result.decisive is None:
        return lines
    seen = result.decisive.observation
    if seen.hint:
        lines.append(f"    hint: {printable(seen.hint)}")
    shown = tail(seen.output)
    lines += [f"    | {line}" for line in shown] or ["    (the guest printed nothing)"]
    lines += [f"    {printable(line)}" for line in seen.summary.splitlines()]
    lines += [f"    kept: {printable(file)}" for file in result.files]
    if again is not None:
        lines.append(f"    again: {printable(again(result.test))}")
    return lines


def end_lines(summary: Summary, plan: Plan) -> list[str]:
    """The sum of a session."""
    lines = []
    if len(summary.results) > len(summary.failures) > 0:
        lines = ["", "failed:"]
        for one in summary.failures:
            label = printable(plan.label(one.test))
            lines.append(f"  {WORDS[one.verdict]:<{_WIDTH}}  {label}  {printable(one.reason)}".rstrip())
    rate = summary.boots / summary.seconds if summary.seconds > 0 else 0.0
    boots = f"{summary.boots} boot{'s' * (summary.boots != 1)}"
    lines += ["", f"{summary.words}; {boots} in {in_seconds(summary.seconds)} ({rate:.1f}/s)"]
    if summary.stopped:
        lines.append(f"ended early: {printable(summary.stopped)}")
    if summary.status == NOTHING_TESTED:
        lines.append("no test passed and none failed: nothing is proven")
    return lines
