"""JSON lines: an object per event, written as it happens; and JSON: the whole session, written at its end.

docs/smoke.md has the fields.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.safe_text import KEPT_OUTPUT, decode
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import Test, TestResult

VERSION: Final = 1


class JsonLinesReporter(Reporter):
    """Each text is a line."""

    def begin(self, plan: Plan) -> None:
        """The tests, in order."""
        self._line(
            event="begin", version=VERSION, **plan.as_dict() | {"tests": [test.key for test in plan.tests]}
        )

    def boot(self, test: Test) -> None:
        """A boot begins."""
        self._line(event="boot", test=test.key)

    def result(self, result: TestResult) -> None:
        """What became of a test."""
        self._line(event="result", **_result(result))

    def end(self, summary: Summary) -> None:
        """The counts, and the exit status."""
        self._line(event="end", **_end(summary))

    def _line(self, **fields: Any) -> None:
        self._write(json.dumps(fields) + "\n")


class JsonReporter(Reporter):
    """The one text is a document, whose fields are those of the lines. `heading` are its first fields."""

    def __init__(self, write: Callable[[str], None], heading: Mapping[str, Any]) -> None:
        super().__init__(write)
        self._heading = heading

    def end(self, summary: Summary) -> None:
        """Write the document."""
        data = {**self._heading, **_end(summary), "tests": list(map(_result, summary.results))}
        self._write(json.dumps(data, indent=2) + "\n")


def _result(result: TestResult) -> dict[str, Any]:
    seen = result.decisive.observation if result.decisive is not None else None
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
            "summary": seen.summary,
            "crash_report": seen.crash_report,
            "messages": seen.messages,
        }
    return fields


def _end(summary: Summary) -> dict[str, Any]:
    return {
        "status": summary.status,
        "counts": Counter(result.verdict.value for result in summary.results),
        "boots": summary.boots,
        "seconds": round(summary.seconds, 4),
        "stopped": summary.stopped,
    }
