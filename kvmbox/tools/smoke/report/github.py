"""Annotations of GitHub Actions: a workflow command per failure, shown at the line of the suite."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kvmbox.tools.smoke.report.reporter import Reporter
from kvmbox.tools.smoke.report.safe_text import printable
from kvmbox.tools.smoke.suite.test_case import TestResult, Verdict


class GithubReporter(Reporter):
    """Each text is a command, a line."""

    def result(self, result: TestResult) -> None:
        """An error for a failure, a warning for what is tolerated."""
        if result.verdict.is_failure:
            level = "error"
        elif result.verdict is Verdict.TOLERATED:
            level = "warning"
        else:
            return
        origin = result.test.origin
        place = f"file={_property(printable(origin.file))}" + (f",line={origin.line}" if origin.line else "")
        kind = result.verdict.value
        title = _property(printable(f"{self._plan.label(result.test)}: {kind}"))
        self._write(f"::{level} {place},title={title}::{_data(printable(result.reason or kind))}\n")


def _data(text: str) -> str:
    """The message of a command, as actions/toolkit escapes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def harmless(line: str) -> str:
    """A line that is no workflow command for the runner: neither ::command:: nor the older ##[command]."""
    return re.sub(":(?=:)", ": ", line).replace("##[", "## [")


@contextmanager
def without_commands(write: Callable[[str], None]) -> Iterator[None]:
    """What is written meanwhile is no workflow command for the runner, whatever a guest has printed."""
    token = secrets.token_hex(16)  # it ends that, so no guest may guess it
    write(f"::stop-commands::{token}\n")
    try:
        yield
    finally:
        write(f"::{token}::\n")
