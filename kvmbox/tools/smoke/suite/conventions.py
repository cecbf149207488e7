"""Status conventions: what the end of a guest means to those who wrote it.

kvmbox's own even statuses mean the same in all of them (`_of_kvmbox`): a crash is never a pass. A convention
that reads verdict lines takes the lines, whatever the guest does behind them: a kernel that has said all may
halt for ever. Two things still count: a failure of kvmbox, and with TAP, which has no last line, a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base import outcome
from kvmbox.base.value_classes import Value
from kvmbox.tools.smoke.report import guest_reports
from kvmbox.tools.smoke.suite.test_case import Judgement, Observation, Pattern, Test, Verdict

PATTERN: Final = "pattern"
USAGE: Final = 2
COULD_NOT_START: Final = 4

_OF_KVMBOX: Final = {
    USAGE: Verdict.ERROR,
    COULD_NOT_START: Verdict.ERROR,
    outcome.GUEST_CRASHED: Verdict.CRASH,
    outcome.DEVICE_FAILED: Verdict.ERROR,
    outcome.UNKNOWN_EXIT: Verdict.ERROR,
    outcome.UNEXPECTED: Verdict.FAIL,
    outcome.KVMBOX_FAILED: Verdict.ERROR,
    outcome.TIMED_OUT: Verdict.TIMEOUT,
    outcome.INTERRUPTED: Verdict.ERROR,
}

KUT_PASS: Final = 1
KUT_FAILED: Final = 3
KUT_SKIP: Final = 77
KUT_ABORT: Final = 127
KUT_SIGNAL: Final = 128


class Convention(Value):
    """How the verdict on a guest is found. `judge` reads the observation and the console, \\n at line ends.

    `takes_status`: a test may name other exit statuses that mean success. `reads_console`: the verdict is on
    the console, and `stop_all`/`stop_any` tell when it is complete.
    """

    about: str
    judge: Callable[[Test, Observation, bytes], Judgement]
    takes_status: bool = False
    reads_console: bool = False
    stop_all: tuple[Pattern, ...] = ()
    stop_any: tuple[Pattern, ...] = ()


def of_kvmbox(seen: Observation) -> Judgement | None:
    """What kvmbox's own (even) statuses mean; None for 0 and what a guest says itself."""
    if seen.status < 0:
        return Judgement(Verdict.ERROR, seen.reason or "kvmbox was killed")
    if seen.status == outcome.CLEAN or seen.status % 2:
        return None
    # An even status that kvmbox does not have is no verdict of anybody.
    return Judgement(_OF_KVMBOX.get(seen.status, Verdict.ERROR), seen.reason)


def _by_status(*success: int) -> Callable[[Test, Observation, bytes], Judgement]:
    """Pass with one of these exit statuses, or those that the test names; all else fails."""

    def judge(test: Test, seen: Observation, _console: bytes) -> Judgement:
        if (decided := of_kvmbox(seen)) is not None:
            return decided
        wanted = test.statuses or success
        if seen.status in wanted:
            return Judgement(Verdict.PASS)
        words = " or ".join(map(str, wanted))
        return Judgement(Verdict.FAIL, f"{seen.reason} (status {seen.status}), and {words} means success")

    return judge


def _kvm_unit_tests(_test: Test, seen: Observation, console: bytes) -> Judgement:
    """As the suite's own scripts: 1 of isa-debug-exit is a pass, an end without it is a failure."""
    if (decided := of_kvmbox(seen)) is not None:
        return decided
    summary = guest_reports.summary_line(console)
    if seen.status == KUT_PASS:
        return Judgement(Verdict.PASS, summary)
    if seen.status == KUT_SKIP:
        return Judgement(Verdict.SKIP, summary or "the guest skipped all of it")
    if seen.status == 0:
        return Judgement(Verdict.FAIL, f"{seen.reason}, without debug-exit")
    if seen.status == KUT_ABORT:
        return Judgement(Verdict.FAIL, "the guest called abort()")
    if seen.status > KUT_SIGNAL:
        return Judgement(Verdict.FAIL, f"status {seen.status}: to run_tests.sh, signal {seen.status - 128}")
    what = "the unit test failed" if seen.status == KUT_FAILED else f"status {seen.status}"
    return Judgement(Verdict.FAIL, f"{what}: {summary}" if summary else what)


def _by_console(
    judge_console: Callable[[Test, bytes], Judgement],
    outweighed_by: frozenset[Verdict] = frozenset({Verdict.ERROR}),
) -> Callable[[Test, Observation, bytes], Judgement]:
    """The console's verdict; where it is none, how the guest ended says more.

    `outweighed_by`: ends that count whatever the console says, unless the verdict was complete before.
    """

    def judge(test: Test, seen: Observation, console: bytes) -> Judgement:
        found = judge_console(test, console)
        decided = of_kvmbox(seen)
        if decided is None or seen.stopped:
            return found
        if found.verdict is not Verdict.FAIL and decided.verdict not in outweighed_by:
            return found
        return Judgement(decided.verdict, f"{decided.reason}; {found.reason}")

    return judge


_LK_LINES: Final = (("pass", guest_reports.LK_PASS), ("fail", guest_reports.LK_FAIL))

# The formatter would give each cell a line of its own.
# fmt: off
CONVENTIONS: Final[dict[str, Convention]] = {
    "kvmbox": Convention(
        "a clean stop (0), or what `status` names; with `expect` and without `status`: the texts alone",
        _by_status(0), takes_status=True),
    "kvm-unit-tests": Convention(
        "debug-exit: 1 passes, 77 skips, all else fails, a clean stop too", _kvm_unit_tests),
    "bootimage": Convention(
        "debug-exit: one success status (33, or what `status` names); all else fails, 0 too",
        _by_status(33), takes_status=True),
    "solo5": Convention(
        "Solo5 and Unikraft: 83 by port 0x501 means that the unikernel ended itself; add `expect`",
        _by_status(83), takes_status=True),
    "sotest": Convention(
        "Cyberus guest-tests: the lines SOTEST ... BEGIN N, SUCCESS, FAIL, SKIP, END",
        _by_console(lambda _test, console: guest_reports.judge_sotest(console)),
        reads_console=True, stop_all=(guest_reports.SOTEST_END,)),
    "tap": Convention(
        "TAP 13 or 14 on the console: a plan, as many test points, none `not ok` unless it is a TODO",
        # A plan may come first: the guest that crashes behind its last point may have had more to do.
        _by_console(lambda _test, console: guest_reports.judge_tap(console),
                    outweighed_by=frozenset({Verdict.ERROR, Verdict.CRASH})),
        reads_console=True, stop_any=(guest_reports.TAP_BAIL,)),
    "lk": Convention(
        "lk's unit tests: `SUCCESS!  All test cases passed`",
        _by_console(lambda _test, console: guest_reports.judge_lines(console, _LK_LINES)),
        reads_console=True, stop_any=(guest_reports.LK_PASS, guest_reports.LK_FAIL)),
    PATTERN: Convention(
        "own verdict lines: `pass_line`, `fail_line`, `skip_line`; the first one that is printed decides",
        _by_console(lambda test, console: guest_reports.judge_lines(console, test.verdict_lines)),
        reads_console=True),
}
# fmt: on
"""By name, as `convention` in a suite names them."""
