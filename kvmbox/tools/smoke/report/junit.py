"""JUnit XML, as Jenkins, GitLab and others read it: written whole at the end of a session.

A guest's failure is a <failure>; a time-out, and what tells nothing of the guest, is an <error>. A tolerated
failure and a test that was not run are <skipped>, since the format has no other word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from xml.etree import ElementTree

from kvmbox.tools.smoke.report.reporter import Reporter
from kvmbox.tools.smoke.report.safe_text import KEPT_OUTPUT, decode, printable_lines
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict

ERRORS: Final = frozenset({Verdict.TIMEOUT, Verdict.ERROR})
SKIPPED: Final = frozenset({Verdict.SKIP, Verdict.TOLERATED, Verdict.NOT_RUN})
_NOT_XML: Final = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class JunitReporter(Reporter):
    """Gives the document to `write` at the end."""

    def __init__(self, write: Callable[[str], None], *, now: Callable[[], float], host: str) -> None:
        """`now` is the wall clock in seconds since 1970, `host` the name of this machine."""
        super().__init__(write)
        self._started = datetime.fromtimestamp(now(), UTC).replace(tzinfo=None).isoformat(timespec="seconds")
        self._host = host

    def end(self, summary: Summary) -> None:
        """Write all of it."""
        counts = _counts(summary.results, summary.seconds)
        root = ElementTree.Element("testsuites", {"name": "kvmbox smoke", **counts})
        suites: dict[str, list[TestResult]] = {}
        for result in summary.results:
            suites.setdefault(result.test.suite, []).append(result)
        for number, (name, results) in enumerate(suites.items()):
            attributes = {
                "name": _valid(name),
                **_counts(results, sum(result.seconds for result in results)),
                "skipped": str(_number(results, SKIPPED)),
                "timestamp": self._started,
                "hostname": _valid(self._host),
                "id": str(number),
            }
            suite = ElementTree.SubElement(root, "testsuite", attributes)
            for result in results:
                suite.append(_case(result))
        ElementTree.indent(root)
        text = ElementTree.tostring(root, encoding="unicode")
        self._write(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n')


def _case(result: TestResult) -> ElementTree.Element:
    test = result.test
    case = ElementTree.Element(
        "testcase", name=_valid(test.name), classname=_valid(test.suite), time=f"{result.seconds:.3f}"
    )
    kind = result.verdict.value
    if result.verdict in SKIPPED:
        ElementTree.SubElement(case, "skipped", message=_valid(result.reason or kind))
    elif result.verdict.is_failure:
        tag = "error" if result.verdict in ERRORS else "failure"
        element = ElementTree.SubElement(case, tag, message=_valid(result.reason or kind), type=kind)
        element.text = _valid("\n".join(_details(result)))
    if result.decisive is not None:
        seen = result.decisive.observation
        out = decode(seen.output[-KEPT_OUTPUT:])
        if seen.crash_report:
            out += f"\n--- crash report ---\n{seen.crash_report}\n"
        if out:
            ElementTree.SubElement(case, "system-out").text = _valid(out)
        if seen.messages:
            ElementTree.SubElement(case, "system-err").text = _valid(seen.messages)
    return case


def _details(result: TestResult) -> Iterable[str]:
    yield f"{result.test.origin}: {result.verdict.value}: {result.reason}"
    if result.boots > 1:
        yield f"{result.passed} of {result.boots} boots passed"
    if result.decisive is not None:
        yield f"status {result.decisive.observation.status}"
        if result.decisive.observation.hint:
            yield f"hint: {result.decisive.observation.hint}"
    yield from (f"kept: {file}" for file in result.files)


def _counts(results: Iterable[TestResult], seconds: float) -> dict[str, str]:
    results = list(results)
    failures = frozenset(verdict for verdict in Verdict if verdict.is_failure) - ERRORS
    return {
        "tests": str(len(results)),
        "failures": str(_number(results, failures)),
        "errors": str(_number(results, ERRORS)),
        "time": f"{seconds:.3f}",
    }


def _number(results: Iterable[TestResult], verdicts: frozenset[Verdict]) -> int:
    return sum(result.verdict in verdicts for result in results)


def _valid(text: str) -> str:
    """Without characters that no XML document may have, not even escaped, or should not have (XML 1.0, 2.2).

    Nor has it what a terminal or a page that shows the document would obey: controls, and characters that
    turn the direction of text.
    """
    return printable_lines(_NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text))
