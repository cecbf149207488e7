"""TAP version 14 (testanything.org): a plan, a test point per result, YAML blocks. Written as results come.

Strings in YAML blocks are JSON strings, which YAML 1.2 accepts: no character of a guest can end a block.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.safe_text import printable, tail
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict


class TapReporter(Reporter):
    """Writes TAP to `write`, which takes text."""

    def __init__(self, write: Callable[[str], None]) -> None:
        super().__init__(write)
        self._number = 0

    def begin(self, plan: Plan) -> None:
        """The version and the plan."""
        super().begin(plan)
        # An empty plan is one that is skipped, in TAP.
        skipped = "" if plan.tests else " # SKIP no test is selected"
        self._write(f"TAP version 14\n1..{len(plan.tests)}{skipped}\n")

    def result(self, result: TestResult) -> None:
        """A test point; none for what was not run, since "Bail out!" stands for it."""
        if result.verdict is Verdict.NOT_RUN:
            return
        self._number += 1
        ok = result.verdict in (Verdict.PASS, Verdict.SKIP)
        line = f"{'ok' if ok else 'not ok'} {self._number} - {escaped(self._plan.label(result.test))}"
        if result.verdict is Verdict.SKIP:
            line += f" # SKIP {escaped(result.reason)}".rstrip()
        elif result.verdict is Verdict.TOLERATED:
            line += f" # TODO {escaped(result.reason)}".rstrip()
        self._write(line + "\n" + "".join(f"  {one}\n" for one in self._diagnostics(result)))

    def end(self, summary: Summary) -> None:
        """Nothing, or "Bail out!" where tests are missing."""
        if summary.stopped is not None and summary.count(Verdict.NOT_RUN):
            self._write(f"Bail out! {printable(summary.stopped)}\n")

    def _diagnostics(self, result: TestResult) -> list[str]:
        if result.verdict is Verdict.SKIP or result.decisive is None:
            return []
        seen = result.decisive.observation
        lines = [
            "---",
            f"verdict: {result.verdict.value}",
            f"duration_ms: {result.seconds * 1000:.3f}",
        ]
        if result.boots > 1:
            lines += [f"boots: {result.boots}", f"passed: {result.passed}"]
        if result.reason:
            lines.append(f"message: {json.dumps(result.reason)}")
        if result.verdict is not Verdict.PASS:
            lines.append(f"status: {seen.status}")
            if seen.hint:
                lines.append(f"hint: {json.dumps(seen.hint)}")
            lines.append(f"at: {json.dumps(str(result.test.origin))}")
            for key, texts in (
                ("console", tail(seen.output)),
                ("crash_report", seen.crash_report.splitlines()),
            ):
                if texts:
                    lines += [f"{key}:", *(f"  - {json.dumps(text)}" for text in texts)]
        return [*lines, "..."]


def escaped(text: str) -> str:
    """A description or a reason: printable, and without what TAP reads."""
    return printable(text).replace("\\", "\\\\").replace("#", "\\#")
