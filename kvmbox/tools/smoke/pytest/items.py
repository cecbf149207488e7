"""Suite files as pytest sees them: a `*.guest.toml` is a file, each of its tests an item."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.errors import UsageError
from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.execute.one_test import run_test
from kvmbox.tools.smoke.report.plain import result_lines
from kvmbox.tools.smoke.report.reporter import Plan
from kvmbox.tools.smoke.report.safe_text import printable
from kvmbox.tools.smoke.suite.collect import collect
from kvmbox.tools.smoke.suite.test_case import Test, TestResult, Verdict

ENDING = ".guest.toml"


class GuestFailed(Exception):
    """A test of a suite did not pass."""

    def __init__(self, result: TestResult) -> None:
        super().__init__(result.reason)
        self.result = result


class GuestFile(pytest.File):
    """A suite file. `executor` gives what boots, when it is needed; `timeout` replaces the tests' limits."""

    executor: Callable[[], Executor]
    timeout: float | None

    @classmethod
    def make(
        cls, parent: pytest.Collector, path: Path, executor: Callable[[], Executor], timeout: float | None
    ) -> GuestFile:
        """A file of a suite."""
        made: GuestFile = cls.from_parent(parent, path=path)
        made.executor, made.timeout = executor, timeout
        return made

    def collect(self) -> Iterable[pytest.Item]:
        """The tests, in order."""
        try:
            tests = collect([str(self.path)]).tests
        except UsageError as error:
            raise self.CollectError(str(error) + (f"\nhint: {error.hint}" if error.hint else "")) from error
        for test in tests:
            yield GuestItem.make(self, test)


class GuestItem(pytest.Item):
    """A test of a suite."""

    test: Test

    @classmethod
    def make(cls, parent: GuestFile, test: Test) -> GuestItem:
        """An item of a file. Groups are keywords for -k."""
        made: GuestItem = cls.from_parent(parent, name=test.name)
        made.test = test
        made.add_marker("guest")
        made.extra_keyword_matches.update(test.groups)
        return made

    def runtest(self) -> None:
        """Boot it, and judge."""
        assert isinstance(self.parent, GuestFile)
        result = run_test(self.test, self.parent.executor(), timeout=self.parent.timeout)
        if result.verdict is Verdict.SKIP:
            pytest.skip(printable(result.reason))
        if result.verdict is Verdict.TOLERATED:
            pytest.xfail(printable(result.reason))
        if result.verdict.is_failure:
            raise GuestFailed(result)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], *args: Any, **kwargs: Any) -> Any:
        """Verdict, console and crash report instead of a traceback of kvmbox."""
        if isinstance(excinfo.value, GuestFailed):
            return "\n".join(result_lines(excinfo.value.result, Plan((self.test,))))
        return super().repr_failure(excinfo, *args, **kwargs)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it is written."""
        return self.path, max(self.test.origin.line - 1, 0), self.name
