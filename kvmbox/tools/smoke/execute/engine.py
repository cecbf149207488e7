"""Drives a session: submits boots to an executor, judges how they end, and tells the reporters."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Final

from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.report.artefacts import Artefacts
from kvmbox.tools.smoke.report.progress import Progress
from kvmbox.tools.smoke.report.reporter import Plan, Reporter
from kvmbox.tools.smoke.report.summary import Summary, in_order
from kvmbox.tools.smoke.suite.schedule import seconds_left
from kvmbox.tools.smoke.suite.test_case import Boot, Observation, Test, TestResult
from kvmbox.tools.smoke.suite.verdict import boot_of

TICK_S: Final = 0.2
"""How often a signal is looked for and the table is drawn, where nothing else happens."""

INTERRUPTED: Final = "interrupted"


class Engine:
    """One session on one executor.

    `timeout` (seconds) replaces the tests' own limits. `interrupted` tells whether a signal asks for the end.
    `durations` are earlier ones by key, for the time that is left.
    """

    def __init__(
        self,
        session: Progress,
        executor: Executor,
        reporters: Sequence[Reporter],
        *,
        plan: Plan,
        timeout: float | None = None,
        artefacts: Artefacts | None = None,
        interrupted: Callable[[], bool] = lambda: False,
        durations: Mapping[str, float] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._executor = executor
        self._reporters = list(reporters)
        self._plan = plan
        self._timeout = timeout
        self._artefacts = artefacts
        self._interrupted = interrupted
        self._durations = durations or {}
        self._clock = clock
        self._running: dict[Future[Observation], tuple[Test, Boot]] = {}
        self._ended: queue.SimpleQueue[Future[Observation]] = queue.SimpleQueue()
        self._was_interrupted = False
        self._failure: Exception | None = None

    def run(self) -> Summary:
        """Run all of it, and tell the reporters. Raises what an executor or a reporter raises."""
        began = self._clock()
        try:
            self._each(lambda reporter: reporter.begin(self._plan))
            self._loop()
        finally:
            # Also where kvmbox itself fails: what is known so far is told before anybody learns why.
            summary = self._finish(began)
        self._raise_failure()
        return summary

    def _loop(self) -> None:
        while True:
            self._raise_failure()
            self._check_signals()
            self._begin_boots()
            if not self._running:
                return
            self._tick()
            try:
                future = self._ended.get(timeout=TICK_S)
            except queue.Empty:
                continue
            self._boot_ended(future)

    def _finish(self, began: float) -> Summary:
        self._check_signals()
        self._executor.cancel()
        if not self._session.finished:
            self._session.stop("kvmbox failed")
        for result in self._session.abandon():
            self._report(result)
        for _, boot in self._running.values():
            if self._artefacts is not None:
                self._artefacts.discard(boot)
        summary = Summary(
            results=in_order(self._session.results, [test.key for test in self._session.tests]),
            seconds=self._clock() - began,
            stopped=self._session.stopped,
            interrupted=self._was_interrupted,
        )
        self._each(lambda reporter: reporter.end(summary))
        return summary

    def _each(self, call: Callable[[Reporter], None]) -> None:
        """Tell every reporter. One that fails hears no more; the first failure ends the session."""
        for reporter in tuple(self._reporters):
            try:
                call(reporter)
            except Exception as error:  # noqa: BLE001 - raised by `_raise_failure`
                self._reporters.remove(reporter)
                self._failure = self._failure or error
            except BaseException:  # a third Ctrl-C, where nobody reads what is written
                self._reporters.remove(reporter)
                raise

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_signals(self) -> None:
        if not self._was_interrupted and self._interrupted():
            self._was_interrupted = True
            self._session.stop(INTERRUPTED)
            self._executor.cancel()

    def _begin_boots(self) -> None:
        while len(self._running) < self._executor.slots:
            found = self._session.next()
            if found is None:
                return
            if isinstance(found, TestResult):
                self._report(found)
                continue
            test = found
            files = self._artefacts.next_files() if self._artefacts is not None else {}
            boot = boot_of(test, timeout=self._timeout, **files)
            self._report_boot(test)
            future = self._executor.submit(boot)
            self._running[future] = (test, boot)
            future.add_done_callback(self._ended.put)

    def _boot_ended(self, future: Future[Observation]) -> None:
        test, boot = self._running.pop(future)
        if self._session.stopped is not None:
            if self._artefacts is not None:
                self._artefacts.discard(boot)
            return  # it was ended by us: that says nothing of the guest
        attempt, result = self._session.ended(test, future.result())
        if self._artefacts is not None:
            self._artefacts.boot_ended(test, boot, attempt.judgement)
        self._each(lambda reporter: reporter.attempt(test, attempt))
        if result is not None:
            if self._artefacts is not None:
                result = self._kept(self._artefacts, result, boot)
            self._report(result)
        if self._session.stopped is not None:  # --fail-fast
            self._executor.cancel()

    def _kept(self, artefacts: Artefacts, result: TestResult, boot: Boot) -> TestResult:
        """The result with what is kept of it. A full disk ends the session, but hides no result."""
        try:
            return self._session.replace_result(artefacts.keep(result, boot))
        except Exception as error:  # noqa: BLE001 - raised by `_raise_failure`
            self._failure = self._failure or error
            return result

    def _report_boot(self, test: Test) -> None:
        self._each(lambda reporter: reporter.boot(test))

    def _report(self, result: TestResult) -> None:
        self._each(lambda reporter: reporter.result(result))

    def _tick(self) -> None:
        boots = sum(result.boots for result in self._session.results)
        took = sum(result.seconds for result in self._session.results)
        left = seconds_left(
            self._session.waiting,
            len(self._running),
            self._executor.slots,
            self._durations,
            took / boots if boots else None,
        )
        running = list({test.key: test for test, _ in self._running.values()}.values())
        self._each(lambda reporter: reporter.tick(running, left))
