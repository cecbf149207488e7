"""The verdict on one boot, and on a test of several. Pure.

Whether an executor ends a boot early must not change the verdict. So what is printed behind the point at
which the verdict is complete does not count, whoever has seen it.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base.outcome import CLEAN, EXPECTED_SEEN
from kvmbox.tools.smoke.suite.conventions import CONVENTIONS, of_kvmbox
from kvmbox.tools.smoke.suite.test_case import (
    Attempt,
    Boot,
    Judgement,
    Observation,
    Pattern,
    Test,
    TestResult,
    Verdict,
)


def console_of(output: bytes) -> bytes:
    """The console as patterns see it: \\r\\n is \\n."""
    return output.replace(b"\r\n", b"\n")


def boot_of(
    test: Test, *, timeout: float | None = None, record: str | None = None, core: str | None = None
) -> Boot:
    """The boot of a test. `timeout` replaces the test's own time limit and that of its start, in seconds."""
    every, single = _decisive(test)
    start = test.start
    if start is not None and timeout is not None:
        start = start.replaced(timeout=timeout)
    return Boot(
        image=test.image,
        options=test.options,
        timeout=test.timeout if timeout is None else timeout,
        dialogue=test.dialogue,
        stop_all=every,
        stop_any=(*single, *test.fail_on),
        record=record,
        core=core,
        start=start,
    )


def judge(test: Test, seen: Observation) -> Judgement:
    """The verdict on one boot of `test`."""
    if seen.start_failed:
        # The console is that of the start. Whatever is found in it, the test has not printed it.
        return Judgement(Verdict.ERROR, seen.reason)
    whole = console_of(seen.output)
    complete_at = _complete_at(test, whole)
    console = whole[:complete_at]
    for pattern in test.fail_on:
        if pattern.regex.search(console):
            return Judgement(Verdict.FAIL, f"the guest printed {pattern}")
    missing = next((one for one in test.expect if not one.regex.search(console)), None)
    if _expect_decides(test):
        return _judge_expected(seen, missing)
    found = CONVENTIONS[test.convention].judge(test, seen, console)
    if found.verdict is not Verdict.PASS:
        return found
    if missing is not None:
        return Judgement(Verdict.FAIL, f"the guest has not printed {missing}")
    if complete_at is None and seen.steps_done < len(test.dialogue):
        step = test.dialogue[seen.steps_done]
        return Judgement(Verdict.FAIL, f"the guest ended before the dialogue: {step.when} was not printed")
    return found


def _expect_decides(test: Test) -> bool:
    """Whether the expected texts alone are success, as with `kvmbox run --expect`."""
    texts_alone = bool(test.expect) and not test.statuses and "expect_picture" not in test.options
    return test.convention == "kvmbox" and texts_alone


def _decisive(test: Test) -> tuple[tuple[Pattern, ...], tuple[Pattern, ...]]:
    """What completes the verdict: all of the first patterns, or any of the second ones."""
    if _expect_decides(test):
        return test.expect, ()
    convention = CONVENTIONS[test.convention]
    if test.expect or not convention.reads_console:
        return (), ()  # what is expected apart from the verdict may come behind it
    own = tuple(pattern for _, pattern in test.verdict_lines)
    return convention.stop_all, (*convention.stop_any, *own)


def _complete_at(test: Test, console: bytes) -> int | None:
    """Where the verdict is complete: nothing behind it counts. None: it is not complete before the end."""
    every, single = _decisive(test)
    ends = [_end(pattern, console) for pattern in every]
    points = [_end(pattern, console) for pattern in single]
    if ends and None not in ends:
        points.append(max(end for end in ends if end is not None))
    return min((point for point in points if point is not None), default=None)


def _end(pattern: Pattern, console: bytes) -> int | None:
    """Where a match ends. The whole line belongs to that of a regular expression: see `watch`."""
    found = pattern.regex.search(console)
    if found is None or not pattern.is_regex:
        return found.end() if found else None
    line_end = console.find(b"\n", found.end())
    return line_end if line_end >= 0 else len(console)


def _judge_expected(seen: Observation, missing: Pattern | None) -> Judgement:
    decided = of_kvmbox(seen)
    if missing is None:
        # Nobody has ended the guest because of its texts: then a failure of kvmbox counts, as everywhere.
        if decided is not None and decided.verdict is Verdict.ERROR and not seen.stopped:
            return decided
        return Judgement(Verdict.PASS)
    if seen.status == CLEAN and seen.reason == EXPECTED_SEEN:
        return Judgement(Verdict.PASS)
    words = f"the guest has not printed {missing}"
    if decided is None:
        return Judgement(Verdict.FAIL, f"{seen.reason}, but {words}")
    if decided.verdict is Verdict.FAIL or not seen.output:
        return decided
    return Judgement(decided.verdict, f"{decided.reason}; {words}")


def outranks(test: Test, verdict: Verdict, kept: Verdict | None) -> bool:
    """Whether the result of `test` tells of a boot with `verdict` rather than of an earlier one with `kept`.

    It tells of the first failure. An error comes before what the suite tolerates: it never is.
    """
    if kept is None or not kept.is_failure:
        return verdict.is_failure
    return test.tolerate is not None and verdict is Verdict.ERROR and kept is not Verdict.ERROR


def conclude(test: Test, attempts: Sequence[Attempt]) -> TestResult:
    """The verdict on a test of all its boots (one at least): flaky if some passed, and some did not."""
    others = [one for one in attempts if one.judgement.verdict is not Verdict.PASS]
    passed = len(attempts) - len(others)
    decisive = (others or attempts)[0]
    for one in others:
        if outranks(test, one.judgement.verdict, decisive.judgement.verdict):
            decisive = one
    verdict, reason = decisive.judgement.verdict, decisive.judgement.reason
    if others and passed:
        verdict = Verdict.PASS if test.allow_flaky else Verdict.FLAKY
        words = f"{passed} of {len(attempts)} boots passed"
        reason = f"{'flaky, which is allowed: ' if test.allow_flaky else ''}{words}; else: {reason}"
    # An error tells nothing of the guest, so it is not the failure that the suite knows.
    is_known = decisive.judgement.verdict is not Verdict.ERROR
    if verdict.is_failure and is_known and test.tolerate is not None:
        reason = (
            f"{test.tolerate} ({verdict.value}: {reason})" if reason else f"{test.tolerate} ({verdict.value})"
        )
        verdict = Verdict.TOLERATED
    return TestResult(
        test=test,
        verdict=verdict,
        reason=reason,
        decisive=decisive,
        boots=len(attempts),
        passed=passed,
        seconds=sum(one.observation.seconds for one in attempts),
    )
