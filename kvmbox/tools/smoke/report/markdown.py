"""A summary in Markdown, for GITHUB_STEP_SUMMARY and merge requests: written at the end of a session."""

from __future__ import annotations

import html
import re
from typing import Final

from kvmbox.tools.smoke.report.reporter import Reporter
from kvmbox.tools.smoke.report.safe_text import in_seconds, printable, tail
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict

MOST_DETAILS: Final = 50
"""How many failures are shown with their console: GitHub refuses a summary beyond 1 MiB."""
MOST_ROWS: Final = 1000
_BREAK: Final = "&#8203;"
"""A space without width: a word with it is no word that GitHub or GitLab knows."""


class MarkdownReporter(Reporter):
    """The one text is the page, at the end."""

    def end(self, summary: Summary) -> None:
        """Write the page."""
        lines = [
            f"### kvmbox smoke: {summary.words}",
            "",
            f"{summary.boots} boots in {in_seconds(summary.seconds)}"
            + (f"; ended early: {_cell(summary.stopped)}" if summary.stopped else ""),
            "",
        ]
        worst = sorted(
            (one for one in summary.results if one.verdict is not Verdict.PASS),
            key=lambda one: not one.verdict.is_failure,
        )
        passed = [one for one in summary.results if one.verdict is Verdict.PASS]
        rows = [*worst, *passed]
        lines += [
            "| test | verdict | time | reason |",
            "|---|---|---|---|",
            *map(self._row, rows[:MOST_ROWS]),
        ]
        if len(rows) > MOST_ROWS:
            lines += ["", f"{len(rows) - MOST_ROWS} further tests are not shown."]
        for result in summary.failures[:MOST_DETAILS]:
            lines += self._details(result)
        self._write("\n".join(lines) + "\n")

    def _row(self, result: TestResult) -> str:
        label = _cell(self._plan.label(result.test))
        time = in_seconds(result.seconds) if result.boots else ""
        return f"| {label} | {result.verdict.value} | {time} | {_cell(result.reason)} |"

    def _details(self, result: TestResult) -> list[str]:
        if result.decisive is None:
            return []
        seen = result.decisive.observation
        parts = [*tail(seen.output), *(printable(line) for line in seen.summary.splitlines())]
        if not parts:
            return []
        label = _cell(self._plan.label(result.test))
        body = html.escape("\n".join(parts))
        return ["", f"<details><summary>{label}</summary>", "", f"<pre>{body}</pre>", "</details>"]


def _cell(text: str) -> str:
    """Text in a table: neither HTML nor Markdown nor the end of the cell; no mention and no reference."""
    text = html.escape(printable(text), quote=False)
    text = text.translate({ord(character): f"&#{ord(character)};" for character in "\\`*_[]|~"})
    # GitHub and GitLab look for @name, #1, !1 and GH-1 in what the page says in the end, where &#64; is @.
    return re.sub(r"(?<!&)([@#!]|GH-)", rf"\1{_BREAK}", text, flags=re.IGNORECASE)
