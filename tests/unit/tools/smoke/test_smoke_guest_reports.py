"""What guests print of their own tests."""

from __future__ import annotations

import pytest

from kvmbox.tools.smoke.report.guest_reports import judge_lines, judge_sotest, judge_tap, summary_line
from kvmbox.tools.smoke.suite.test_case import Pattern, Verdict

PASS, FAIL, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.SKIP


@pytest.mark.parametrize(
    ("console", "verdict", "reason"),
    [
        ("booting\nTAP version 14\n1..2\nok 1 - a\nok 2 - b\nbye\n", PASS, "TAP: 2 of 2 ok"),
        ("ok\nok\n1..2\n", PASS, "TAP: 2 of 2 ok"),
        ("1..2\nok 1\nnot ok 2 - b # TODO later\n", PASS, "TAP: 1 of 2 ok, 1 to do"),
        ("1..2\nok 1\nok 2 # skip no net\n", PASS, "TAP: 1 of 2 ok, 1 skipped"),
        ("1..1\nok 1 # SKIP\n", SKIP, "TAP: all 1 skipped"),
        ("1..0 # SKIP no disk\n", SKIP, "TAP: no disk"),
        ("1..0\n", SKIP, "TAP: all is skipped"),
        ("1..2\nok 1\nnot ok 2 - the disk\n", FAIL, "TAP: 1 of 2 failed: the disk"),
        ("1..2\nnot ok 1\nok 2\n", FAIL, "TAP: 1 of 2 failed: 1"),
        ("not ok 1 - x # SKIP\n1..1\n", FAIL, "TAP: 1 of 1 failed: x # SKIP"),
        ("1..3\nok 1\nok 2\n", FAIL, "TAP: 2 of 3 planned test points"),
        ("1..1\nok 1\nok 2\n", FAIL, "TAP: 2 of 1 planned test points"),
        ("1..2\nok 1\nok 1\n", FAIL, "TAP: test points are not numbered 1 to N"),
        ("ok 1\n", FAIL, "TAP: there is no plan (1..N)"),
        ("1..1\n1..1\nok 1\n", FAIL, "TAP: two plans"),
        ("1..2\nok 1\nBail out! no memory\n", FAIL, "TAP: bail out: no memory"),
        ("bail out!\n", FAIL, "TAP: bail out"),
        ("hello\n", FAIL, "there is no TAP"),
        ("", FAIL, "there is no TAP"),
        ("okay 1\n1..1\nok 1 - \\# TODO\n", PASS, "TAP: 1 of 1 ok"),
        ("1..4\nnot ok 1 a\nnot ok 2 b\nnot ok 3 c\nnot ok 4 d\n", FAIL, "TAP: 4 of 4 failed: a, b, c, ..."),
        ("1..1\nnot ok 1 - \x1b[31mred\n", FAIL, "TAP: 1 of 1 failed: ?[31mred"),
        ("1..2\nok 1 # TODO\nnot ok 2 # TODO\n", SKIP, "TAP: all 2 to do"),
        ("1..2\nok 1 # SKIP\nnot ok 2 # TODO\n", SKIP, "TAP: all 1 skipped, 1 to do"),
        ("1..999999999\nok 1\n", FAIL, "TAP: 1 of 999999999 planned test points"),
        ("1.." + "9" * 5000 + "\nok 1\n", FAIL, "TAP: 1 of 1000000000 planned test points"),
        ("1..1\nok " + "9" * 5000 + "\n", FAIL, "TAP: test points are not numbered 1 to N"),
        # Indented lines are subtests: their parent's point counts.
        ("1..1\n    1..1\n    not ok 1\nok 1\n", PASS, "TAP: 1 of 1 ok"),
    ],
)
def test_tap_of_a_guest(console: str, verdict: Verdict, reason: str) -> None:
    found = judge_tap(console.encode())
    assert (found.verdict, found.reason) == (verdict, reason)


BEGIN = "SOTEST VERSION 1 BEGIN 2\n"


@pytest.mark.parametrize(
    ("console", "verdict", "reason"),
    [
        (BEGIN + 'SOTEST SUCCESS "a"\nSOTEST SUCCESS "b"\nSOTEST END\n', PASS, "SOTEST: 2 of 2 succeeded"),
        (
            BEGIN + 'SOTEST SUCCESS "a"\nSOTEST SKIP\nSOTEST END\n',
            PASS,
            "SOTEST: 1 of 2 succeeded, 1 skipped",
        ),
        (BEGIN + "SOTEST SKIP\nSOTEST SKIP\nSOTEST END\n", SKIP, "SOTEST: all 2 skipped"),
        (BEGIN + 'SOTEST SUCCESS "a"\nSOTEST FAIL "b"\nSOTEST END\n', FAIL, "SOTEST: 1 of 2 failed: b"),
        (BEGIN + 'SOTEST FAIL "b"\n', FAIL, "SOTEST: 1 of 2 failed: b"),
        (BEGIN + 'SOTEST SUCCESS "a"\nSOTEST END\n', FAIL, "SOTEST: 1 of 2 results before END"),
        (BEGIN + 'SOTEST SUCCESS "a"\nSOTEST SUCCESS "b"\n', FAIL, "SOTEST: 2 of 2 results, and no END"),
        (BEGIN + BEGIN, FAIL, "SOTEST: two times BEGIN: the guest began again"),
        ("SOTEST VERSION 1 BEGIN 0\nSOTEST END\n", SKIP, "SOTEST: BEGIN 0: nothing was tested"),
        (
            f"SOTEST VERSION 1 BEGIN {'9' * 5000}\nSOTEST END\n",
            FAIL,
            "SOTEST: 0 of 1000000000 results before END",
        ),
        ('SOTEST SUCCESS "a"\n', FAIL, 'SOTEST: SUCCESS "a" before BEGIN'),
        ("SOTEST\nnothing\n", FAIL, "there is no SOTEST line"),
        (
            '[1.0] SOTEST VERSION 1 BEGIN 1\n[2.0] SOTEST SUCCESS "x"\n[3.0] SOTEST END\n',
            PASS,
            "SOTEST: 1 of 1 succeeded",
        ),
        (
            BEGIN + 'SOTEST BENCHMARK:x:us:3\nSOTEST SUCCESS "a"\nSOTEST SUCCESS "b"\nSOTEST END\n',
            PASS,
            "SOTEST: 2 of 2 succeeded",
        ),
    ],
)
def test_sotest_of_a_guest(console: str, verdict: Verdict, reason: str) -> None:
    found = judge_sotest(console.encode())
    assert (found.verdict, found.reason) == (verdict, reason)


LINES = (
    ("pass", Pattern("ALL OK")),
    ("fail", Pattern(r"^(FAILED|PANIC)\b", is_regex=True)),
    ("skip", Pattern("SKIPPED")),
)


@pytest.mark.parametrize(
    ("console", "verdict", "reason"),
    [
        ("x\n>> ALL OK <<\n", PASS, ">> ALL OK <<"),
        ("FAILED 3\nALL OK\n", FAIL, "FAILED 3"),
        ("ALL OK\nFAILED\n", PASS, "ALL OK"),
        ("not FAILED\n", FAIL, "there is no verdict line"),
        ("SKIPPED: no net", SKIP, "SKIPPED: no net"),
        ("", FAIL, "there is no verdict line"),
    ],
)
def test_verdict_lines(console: str, verdict: Verdict, reason: str) -> None:
    found = judge_lines(console.encode(), LINES)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_of_two_verdict_lines_that_begin_together_the_failure_counts() -> None:
    lines = (("pass", Pattern("END")), ("fail", Pattern("END WITH ERRORS")))
    assert judge_lines(b"END WITH ERRORS\n", lines).verdict is FAIL
    assert judge_lines(b"END\n", lines).verdict is PASS


def test_summary_of_kvm_unit_tests_is_the_last_one() -> None:
    assert summary_line(b"SUMMARY: 1 tests\nx SUMMARY: no\nSUMMARY: 2 tests, 1 unexpected failures\n") == (
        "2 tests, 1 unexpected failures"
    )
    assert summary_line(b"") == ""
