"""How long the tests took, and where: what pytest prints at the end of a run, with pytest-xdist too."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Final

import pytest

MOST: Final = 10


class Took:
    """A plugin of pytest. With pytest-xdist the process that prints is told what each worker has run."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._folders: defaultdict[str, float] = defaultdict(float)
        """Of each folder the seconds of its tests: with those at the same time, more than have passed."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Whatever the set-up, the call and the clean-up of a test took, its folder took."""
        self._folders[report.nodeid.partition("::")[0].rpartition("/")[0]] += report.duration

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say it."""
        if not self._folders:
            return
        passed = time.monotonic() - self._began
        terminalreporter.section(f"{passed / 60:.1f} minutes; seconds of tests by folder")
        ordered = sorted(self._folders.items(), key=lambda item: -item[1])
        for folder, seconds in ordered[:MOST]:
            terminalreporter.write_line(f"{seconds:8.1f}  {folder}")
        if len(ordered) > MOST:
            terminalreporter.write_line(f"{sum(seconds for _, seconds in ordered[MOST:]):8.1f}  others")
