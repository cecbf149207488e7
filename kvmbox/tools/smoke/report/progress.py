"""The state of a session: what is booted next, and which results that gives. Pure.

A test has one boot, or `repeat` ones, or further ones while it fails and has retries. Its result is known
when it needs no further boot. A session that is stopped gives every test a result, too: what was not run
says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from kvmbox.tools.smoke.suite.test_case import Attempt, Judgement, Observation, Test, TestResult, Verdict
from kvmbox.tools.smoke.suite.verdict import conclude, judge


class _Progress:
    """A test on its way: boots to begin, boots under way, boots judged."""

    def __init__(self, test: Test, boots: int) -> None:
        self.test = test
        self.to_begin = boots
        self.running = 0
        self.attempts: list[Attempt] = []
        self.result: TestResult | None = None


class Progress:
    """Tests, and how far they are. `results` are in the order in which they became known."""

    def __init__(
        self,
        tests: Sequence[Test],
        *,
        repeat: int = 1,
        fail_fast: bool = False,
        skip: Callable[[Test], str | None] = lambda test: test.skip,
        judge: Callable[[Test, Observation], Judgement] = judge,
    ) -> None:
        """`repeat` boots of each test (retries then mean nothing). `skip` says why one is not run.

        `judge` gives the verdict on a boot. What it raises is the verdict ERROR on that boot.
        """
        self.tests = tuple(tests)
        self.results: list[TestResult] = []
        self.stopped: str | None = None
        """Why the session ended early, or None."""
        self._repeat = repeat
        self._fail_fast = fail_fast
        self._skip = skip
        self._judge = judge
        self._all = {test.key: _Progress(test, repeat) for test in self.tests}
        self._queue = deque(self._all.values())

    @property
    def finished(self) -> bool:
        """Whether every test has a result."""
        return len(self.results) == len(self.tests)

    @property
    def waiting(self) -> list[Test]:
        """Tests of which no boot has begun or that need another one, in order."""
        return [one.test for one in self._queue if one.result is None]

    def next(self) -> Test | TestResult | None:
        """The test to boot now, or the result of one that is skipped; None if there is nothing to begin."""
        while self._queue and self.stopped is None:
            progress = self._queue[0]
            if progress.result is not None or not progress.to_begin:
                self._queue.popleft()
                continue
            if not progress.running and not progress.attempts:
                reason = self._skip(progress.test)
                if reason is not None:
                    return self._settle(progress, TestResult(progress.test, Verdict.SKIP, reason))
            progress.to_begin -= 1
            progress.running += 1
            return progress.test
        return None

    def ended(self, test: Test, seen: Observation) -> tuple[Attempt, TestResult | None]:
        """A boot of `test` has ended; its verdict, and the test's result if that is known now."""
        progress = self._all[test.key]
        attempt = Attempt(seen, self._judged(test, seen))
        progress.running -= 1
        progress.attempts.append(_slim(attempt, progress.attempts))
        if self._wants_retry(progress):
            progress.to_begin += 1
            self._queue.appendleft(progress)
            return attempt, None
        if progress.running or progress.to_begin:
            return attempt, None
        result = self._settle(progress, conclude(test, progress.attempts))
        if self._fail_fast and result.verdict.is_failure:
            self.stop("--fail-fast")
        return attempt, result

    def _judged(self, test: Test, seen: Observation) -> Judgement:
        """The verdict. A guest that kvmbox cannot judge is one error, and not the end of the session."""
        try:
            return self._judge(test, seen)
        except Exception as error:  # noqa: BLE001 - told as the result of the test
            words = f"kvmbox cannot judge this guest: {type(error).__name__}: {error}"
            return Judgement(Verdict.ERROR, words)

    def replace_result(self, result: TestResult) -> TestResult:
        """The last result, with what was kept of it."""
        assert self.results[-1].test is result.test
        self.results[-1] = self._all[result.test.key].result = result
        return result

    def stop(self, why: str) -> None:
        """Begin no further boot: a signal, or --fail-fast. Idempotent."""
        if self.stopped is None and not self.finished:
            self.stopped = why

    def abandon(self) -> list[TestResult]:
        """The results of all tests that have none, once the session has stopped and nothing runs any more."""
        made = []
        for progress in self._all.values():
            if progress.result is None:
                reason = f"not run: {self.stopped or 'the session ended'}"
                if progress.attempts or progress.running:
                    reason = f"not finished: {self.stopped or 'the session ended'}"
                result = TestResult(
                    progress.test,
                    Verdict.NOT_RUN,
                    reason,
                    boots=len(progress.attempts),
                    passed=sum(one.judgement.verdict is Verdict.PASS for one in progress.attempts),
                    seconds=sum(one.observation.seconds for one in progress.attempts),
                )
                made.append(self._settle(progress, result))
        return made

    def _wants_retry(self, progress: _Progress) -> bool:
        return (
            self._repeat == 1
            and self.stopped is None
            and progress.attempts[-1].judgement.verdict.is_failure
            and len(progress.attempts) <= progress.test.retries
        )

    def _settle(self, progress: _Progress, result: TestResult) -> TestResult:
        progress.result = result
        self.results.append(result)
        return result


def _slim(attempt: Attempt, earlier: Sequence[Attempt]) -> Attempt:
    """Without what nobody will read: a thousand boots of a guest print the same a thousand times."""
    # The first boot of each kind may be the one that is told of.
    if any(one.judgement.verdict is attempt.judgement.verdict for one in earlier):
        slim = attempt.observation.replaced(output=b"", messages="", crash_report="", summary="", screen=None)
        return attempt.replaced(observation=slim)
    return attempt
