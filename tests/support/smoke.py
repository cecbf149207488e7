"""Tests, observations and executors for sessions of `kvmbox smoke` without any guest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.summary import Summary
from kvmbox.tools.smoke.suite.test_case import (
    Attempt,
    Boot,
    Judgement,
    Observation,
    Origin,
    Pattern,
    Start,
    Test,
    TestResult,
    Verdict,
)

CLEAN = "the guest shut down"


def a_test(name: str = "one", **values: Any) -> Test:
    """A test; the image is named as the test is."""
    values.setdefault("suite", "suite")
    values.setdefault("image", f"{name}.elf")
    values.setdefault("origin", Origin("suite.toml", 7))
    return Test(name=name, **values)


def a_start(name: str = "booted", line: int = 1, **values: Any) -> Start:
    """A start that is there when the guest has printed "login"; the image is named as the start is."""
    return Start(name, f"{name}.elf", Origin("suite.toml", line), "login", **values)


def seen(status: int = 0, output: bytes = b"", reason: str = CLEAN, **values: Any) -> Observation:
    """How a boot ended; it took a second."""
    values = {"seconds": 1.0, "hint": None, "crash_report": ""} | values
    values.setdefault("summary", values["crash_report"])
    return Observation(status=status, reason=reason, output=output, **values)


def a_result(
    name: str = "one",
    verdict: Verdict = Verdict.PASS,
    reason: str = "",
    observation: Observation | None = None,
    **values: Any,
) -> TestResult:
    """A result of one boot, unless `observation` is missing and the test did not run."""
    test = a_test(name, **values)
    if not verdict.has_run:
        return TestResult(test, verdict, reason)
    decisive = Attempt(observation or seen(), Judgement(verdict, reason))
    return TestResult(
        test, verdict, reason, decisive, 1, int(verdict is Verdict.PASS), decisive.observation.seconds
    )


def a_summary(results: Sequence[TestResult], **values: Any) -> Summary:
    """A session of 2 seconds."""
    return Summary(tuple(results), values.pop("seconds", 2.0), **values)


def tell(reporter: Reporter, results: Sequence[TestResult], **summary: Any) -> Summary:
    """A whole session, as the engine tells it."""
    reporter.begin(Plan(tuple(result.test for result in results)))
    for result in results:
        if result.verdict.has_run:
            reporter.boot(result.test)
            assert result.decisive is not None
            reporter.attempt(result.test, result.decisive)
        reporter.tick([result.test], 3.0)
        reporter.result(result)
    made = a_summary(results, **summary)
    reporter.end(made)
    reporter.close()
    return made


def literal(*texts: str) -> tuple[Pattern, ...]:
    """Literal patterns."""
    return tuple(map(Pattern, texts))


def regex(*texts: str) -> tuple[Pattern, ...]:
    """Regular expressions."""
    return tuple(Pattern(text, is_regex=True) for text in texts)


Answer = Callable[[Boot], "Observation | Exception | None"]


@dataclass
class FakeExecutor:
    """Answers boots by `answer`: an observation or an exception at once, None leaves the boot running."""

    answer: Answer
    slots: int = 1
    boots: list[Boot] = field(default_factory=list)
    pending: list[Future[Observation]] = field(default_factory=list)
    most_pending: int = 0
    cancelled: bool = False
    exited: bool = False

    def submit(self, boot: Boot) -> Future[Observation]:
        assert not self.cancelled, "nothing is submitted to an executor that was cancelled"
        self.boots.append(boot)
        future: Future[Observation] = Future()
        found = self.answer(boot)
        self.most_pending = max(self.most_pending, len(self.pending) + 1)
        if isinstance(found, Exception):
            future.set_exception(found)
        elif found is not None:
            future.set_result(found)
        else:
            self.pending.append(future)
        return future

    def cancel(self) -> None:
        self.cancelled = True
        for future in self.pending:
            future.set_result(seen(130, reason="ended"))
        self.pending.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()
        self.exited = True


def answers(table: dict[str, Iterable[Observation | Exception | None]]) -> Answer:
    """By image: one observation after the other."""
    iterators = {image: iter(observations) for image, observations in table.items()}
    return lambda boot: next(iterators[boot.image])


class Log(Reporter):
    """Notes what it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.summary: Summary | None = None

    def begin(self, plan: Plan) -> None:
        self.events.append(("begin", str(len(plan.tests))))

    def boot(self, test: Test) -> None:
        self.events.append(("boot", test.name))

    def attempt(self, test: Test, attempt: Attempt) -> None:
        self.events.append(("attempt", f"{test.name} {attempt.judgement.verdict.value}"))

    def result(self, result: TestResult) -> None:
        self.events.append(("result", f"{result.test.name} {result.verdict.value}"))

    def end(self, summary: Summary) -> None:
        assert self.summary is None, "a session ends once"
        self.events.append(("end", summary.words))
        self.summary = summary

    def named(self, kind: str) -> list[str]:
        """What was said of one kind, in order."""
        return [text for event, text in self.events if event == kind]
