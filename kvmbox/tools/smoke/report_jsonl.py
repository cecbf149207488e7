"""JSON lines: an object per event, written as it happens. docs/smoke.md has the fields."""

from __future__ import annotations

import json
from typing import Any, Final

from kvmbox.tools.smoke.model import Test, TestResult
from kvmbox.tools.smoke.reporter import Plan, Reporter
from kvmbox.tools.smoke.summary import Summary
from kvmbox.tools.smoke.text import KEPT_OUTPUT, decode

VERSION: Final = 1


class JsonLinesReporter(Reporter):
    """Each text is a line."""

    def begin(self, plan: Plan) -> None:
        """The tests, in order."""
        self._line(
            event="begin",
            version=VERSION,
            tests=[test.key for test in plan.tests],
            repeat=plan.repeat,
            slots=plan.slots,
            shard=plan.shard,
            deselected=plan.deselected,
        )

    def boot(self, test: Test) -> None:
        """A boot begins."""
        self._line(event="boot", test=test.key)

    def result(self, result: TestResult) -> None:
        """What became of a test."""
        seen = result.told.observation if result.told is not None else None
        fields: dict[str, Any] = {
            "test": result.test.key,
            "suite": result.test.suite,
            "name": result.test.name,
            "verdict": result.verdict.value,
            "reason": result.reason,
            "at": str(result.test.origin),
            "boots": result.boots,
            "passed": result.passed,
            "seconds": round(result.seconds, 4),
            "files": list(result.files),
        }
        if seen is not None:
            fields |= {
                "status": None if seen.stopped else seen.status,
                "hint": seen.hint,
                "console": decode(seen.output[-KEPT_OUTPUT:]),
                "crash_report": seen.crash_report,
                "messages": seen.messages,
            }
        self._line(event="result", **fields)

    def end(self, summary: Summary) -> None:
        """The counts, and the exit status."""
        counts: dict[str, int] = {}
        for result in summary.results:
            counts[result.verdict.value] = counts.get(result.verdict.value, 0) + 1
        self._line(
            event="end",
            status=summary.status,
            counts=counts,
            boots=summary.boots,
            seconds=round(summary.seconds, 4),
            stopped=summary.stopped,
        )

    def _line(self, **fields: Any) -> None:
        self._write(json.dumps(fields) + "\n")
