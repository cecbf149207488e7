"""What earlier sessions tell: how long each test took, and which ones failed. Pure: JSON in, JSON out.

{"kvmbox-smoke-history": 1, "tests": {"suite/name": {"seconds": 0.1, "verdict": "pass"}}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from kvmbox.tools.smoke.suite.test_case import FAILURES, TestResult, Verdict

VERSION: Final = 1
MOST_BYTES: Final = 16 << 20
MOST_SECONDS: Final = 1e7
_MARK: Final = "kvmbox-smoke-history"


@dataclass(slots=True)
class History:
    """By key of the test: the seconds of a boot, and the last verdict."""

    seconds: dict[str, float] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> History:
        """ValueError if this is no history."""
        try:
            content = json.loads(text)
            version = content[_MARK]
            tests = content["tests"].items()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError("it is no history of kvmbox smoke") from error
        if version != VERSION:
            raise ValueError(f"its version is {version}, and this kvmbox reads {VERSION}")
        found = cls()
        for key, entry in tests:
            if not isinstance(entry, dict):
                raise ValueError(f"the entry of '{key}' is no table")
            seconds, verdict = entry.get("seconds"), entry.get("verdict")
            if not isinstance(seconds, int | float) or not 0 <= seconds <= MOST_SECONDS:
                raise ValueError(f"the seconds of '{key}' are no time")
            try:
                found.verdicts[key] = Verdict(verdict)
            except ValueError as error:
                raise ValueError(f"the verdict of '{key}' is unknown") from error
            found.seconds[key] = float(seconds)
        return found

    @property
    def failed(self) -> frozenset[str]:
        """The keys of the tests that failed last time."""
        return frozenset(key for key, verdict in self.verdicts.items() if verdict in FAILURES)

    def with_results(self, results: Iterable[TestResult]) -> History:
        """This history and the results of a session; tests that did not run keep what is known of them."""
        merged = History(dict(self.seconds), dict(self.verdicts))
        for result in results:
            if result.verdict.has_run and result.boots:
                merged.seconds[result.test.key] = round(result.seconds / result.boots, 3)
                merged.verdicts[result.test.key] = result.verdict
        return merged

    def as_text(self) -> str:
        """What `parse` reads, one test a line, sorted: the file may be kept under version control."""
        lines: dict[str, Any] = {
            key: {"seconds": self.seconds[key], "verdict": self.verdicts[key].value}
            for key in sorted(self.seconds)
        }
        body = ",\n".join(f"{json.dumps(key)}: {json.dumps(entry)}" for key, entry in lines.items())
        return f'{{"{_MARK}": {VERSION}, "tests": {{\n{body}\n}}}}\n'
