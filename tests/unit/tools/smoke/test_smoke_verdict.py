"""Verdicts: each convention, what is expected besides, and that an early end changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base.outcome import EXPECTED_SEEN
from kvmbox.tools.smoke.execute.output_watch import OutputWatch
from kvmbox.tools.smoke.suite.conventions import CONVENTIONS
from kvmbox.tools.smoke.suite.test_case import Attempt, Judgement, Step, Test, Verdict
from kvmbox.tools.smoke.suite.verdict import boot_of, conclude, judge
from tests.support.smoke import CLEAN, a_start, a_test, literal, regex, seen

PASS, FAIL, SKIP = Verdict.PASS, Verdict.FAIL, Verdict.SKIP
CRASH, TIMEOUT, ERROR = Verdict.CRASH, Verdict.TIMEOUT, Verdict.ERROR

SOTEST = b'SOTEST VERSION 1 BEGIN 1\r\nSOTEST SUCCESS "a"\r\nSOTEST END\r\n'


@pytest.mark.parametrize(
    ("values", "status", "output", "verdict"),
    [
        ({}, 0, b"", PASS),
        ({}, 1, b"", FAIL),
        ({}, 33, b"", FAIL),
        ({"statuses": (33, 35)}, 33, b"", PASS),
        ({"statuses": (33, 35)}, 0, b"", FAIL),
        ({"convention": "bootimage"}, 33, b"", PASS),
        ({"convention": "bootimage"}, 0, b"", FAIL),
        ({"convention": "bootimage"}, 35, b"", FAIL),
        ({"convention": "bootimage", "statuses": (21,)}, 21, b"", PASS),
        ({"convention": "bootimage", "statuses": (21,)}, 33, b"", FAIL),
        ({"convention": "solo5"}, 83, b"", PASS),
        ({"convention": "solo5"}, 0, b"", FAIL),
        ({"convention": "kvm-unit-tests"}, 1, b"", PASS),
        ({"convention": "kvm-unit-tests"}, 3, b"", FAIL),
        ({"convention": "kvm-unit-tests"}, 77, b"", SKIP),
        ({"convention": "kvm-unit-tests"}, 127, b"", FAIL),
        ({"convention": "kvm-unit-tests"}, 0, b"", FAIL),
        ({"convention": "kvm-unit-tests"}, 139, b"", FAIL),
        ({"convention": "kvm-unit-tests"}, 5, b"", FAIL),
        ({"convention": "sotest"}, 0, SOTEST, PASS),
        ({"convention": "sotest"}, 6, SOTEST, PASS),
        ({"convention": "sotest"}, 0, b"", FAIL),
        ({"convention": "tap"}, 0, b"1..1\r\nok 1\r\n", PASS),
        ({"convention": "tap"}, 0, b"1..1\r\nnot ok 1\r\n", FAIL),
        ({"convention": "tap"}, 0, b"1..0 # SKIP\r\n", SKIP),
        ({"convention": "tap"}, 6, b"1..1\r\nok 1\r\n", CRASH),
        ({"convention": "tap"}, 6, b"1..0 # SKIP\r\n", CRASH),
        ({"convention": "tap"}, 124, b"1..1\r\nok 1\r\n", PASS),  # it may halt for ever
        ({"convention": "lk"}, 0, b"SUCCESS!  All test cases passed!\r\n", PASS),
        ({"convention": "lk"}, 0, b"    CASES:  3     SUCCESS:  2     FAILED:  1   \r\n", FAIL),
        ({"convention": "lk"}, 0, b"    CASES:  3     SUCCESS:  3     FAILED:  0   \r\n", FAIL),
        ({"convention": "pattern", "verdict_lines": (("pass", regex("^OK$")[0]),)}, 0, b"OK\r\n", PASS),
    ],
)
def test_convention_reads_the_end_of_a_guest(
    values: dict[str, Any], status: int, output: bytes, verdict: Verdict
) -> None:
    assert judge(a_test(**values), seen(status, output)).verdict is verdict


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (2, ERROR),
        (4, ERROR),
        (6, CRASH),
        (8, ERROR),
        (10, ERROR),
        (12, FAIL),
        (14, ERROR),
        (124, TIMEOUT),
        (130, ERROR),
        (-9, ERROR),
        (98, ERROR),
    ],
)
def test_even_statuses_of_kvmbox_mean_the_same_everywhere(
    convention: str, status: int, verdict: Verdict
) -> None:
    lines = (("pass", literal("x")[0]),) if convention == "pattern" else ()
    test = a_test(convention=convention, verdict_lines=lines)
    found = judge(test, seen(status, reason="why it ended"))
    assert found.verdict is verdict
    assert "why it ended" in found.reason


@pytest.mark.parametrize("status", [8, 10, 14])
@pytest.mark.parametrize(
    ("convention", "output"),
    [
        ("sotest", SOTEST),
        ("tap", b"1..1\r\nok 1\r\n"),
        ("tap", b"1..0 # SKIP\r\n"),
        ("lk", b"SUCCESS!  All test cases passed!\r\n"),
        ("pattern", b"x\r\n"),
    ],
)
def test_failure_of_kvmbox_is_no_verdict_on_the_guest_whatever_was_printed(
    convention: str, output: bytes, status: int
) -> None:
    lines = (("pass", literal("x")[0]),) if convention == "pattern" else ()
    test = a_test(convention=convention, verdict_lines=lines)
    found = judge(test, seen(status, output, reason="the UART failed"))
    assert found.verdict is ERROR
    assert found.reason.startswith("the UART failed; ")
    # A boot that was ended because all was said has a status that means nothing.
    assert judge(test, seen(status, output, stopped=True)).verdict in (PASS, SKIP)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_no_convention_passes_a_guest_that_did_nothing(convention: str) -> None:
    # A clean stop at once is what an empty kernel can do: only kvmbox's own convention calls it success.
    lines = (("pass", literal("x")[0]),) if convention == "pattern" else ()
    found = judge(a_test(convention=convention, verdict_lines=lines), seen(0))
    assert (found.verdict is PASS) == (convention == "kvmbox")


def test_reasons_say_what_was_wanted() -> None:
    assert (
        judge(a_test(), seen(33, reason="debug-exit")).reason == "debug-exit (status 33), and 0 means success"
    )
    kut = a_test(convention="kvm-unit-tests")
    summary = b"SUMMARY: 3 tests, 1 unexpected failures\r\n"
    assert judge(kut, seen(3, summary)).reason == "the unit test failed: 3 tests, 1 unexpected failures"
    assert judge(kut, seen(1, summary)).reason == "3 tests, 1 unexpected failures"
    assert judge(kut, seen(0)).reason == f"{CLEAN}, without debug-exit"
    assert judge(kut, seen(139)).reason == "status 139: to run_tests.sh, signal 11"


# --- Expected and fatal texts ----------------------------------------------------------------------------


def test_expected_texts_alone_are_success_however_the_guest_ends() -> None:
    test = a_test(expect=(*literal("one"), *regex(r"^two \d$")))
    for status in (0, 1, 6, 12, 124):
        assert judge(test, seen(status, b"two 2\r\none\r\n")).verdict is PASS


def test_failure_of_kvmbox_outweighs_expected_texts_unless_they_ended_the_boot() -> None:
    test = a_test(expect=literal("one"))
    for status in (8, 10, 14):
        assert judge(test, seen(status, b"one")).verdict is ERROR
        assert judge(test, seen(status, b"one", stopped=True)).verdict is PASS


@pytest.mark.parametrize(
    ("status", "reason", "verdict", "words"),
    [
        (0, CLEAN, FAIL, "the guest shut down, but the guest has not printed 'one'"),
        (33, "debug-exit", FAIL, "debug-exit, but the guest has not printed 'one'"),
        (6, "triple fault", CRASH, "triple fault; the guest has not printed 'one'"),
        (124, "too late", TIMEOUT, "too late; the guest has not printed 'one'"),
        (12, "but had not printed 'one'", FAIL, "but had not printed 'one'"),
    ],
)
def test_missing_text_is_named(status: int, reason: str, verdict: Verdict, words: str) -> None:
    found = judge(a_test(expect=literal("one")), seen(status, b"two\n", reason=reason))
    assert (found.verdict, found.reason) == (verdict, words)


def test_kvmbox_own_matcher_is_believed() -> None:
    # It sees each port alone, and the console here may be two ports mixed.
    assert judge(a_test(expect=literal("one")), seen(0, b"o1n2e3", reason=EXPECTED_SEEN)).verdict is PASS


def test_texts_beside_a_status_are_both_wanted() -> None:
    test = a_test(expect=literal("one"), statuses=(33,))
    assert judge(test, seen(33, b"one")).verdict is PASS
    assert judge(test, seen(33, b"")).reason == "the guest has not printed 'one'"
    assert judge(test, seen(0, b"one")).verdict is FAIL


def test_fatal_text_fails_whatever_the_convention_says() -> None:
    for values in ({}, {"convention": "kvm-unit-tests"}, {"convention": "tap"}):
        test = a_test(fail_on=regex("PANIC.*"), **values)
        found = judge(test, seen(1, b"PANIC: x\r\n1..1\r\nok 1\r\n"))
        assert (found.verdict, found.reason) == (FAIL, "the guest printed /PANIC.*/")


def test_fatal_text_behind_the_last_expected_one_does_not_count() -> None:
    test = a_test(expect=literal("done"), fail_on=literal("PANIC"))
    assert judge(test, seen(0, b"done PANIC")).verdict is PASS
    assert judge(test, seen(0, b"PANIC done")).verdict is FAIL
    assert judge(test, seen(0, b"PANIC")).verdict is FAIL


def test_fatal_text_behind_a_complete_verdict_does_not_count() -> None:
    test = a_test(convention="sotest", fail_on=literal("PANIC"))
    assert judge(test, seen(6, SOTEST + b"PANIC")).verdict is PASS
    assert judge(test, seen(6, b"PANIC" + SOTEST)).verdict is FAIL


def test_of_two_verdict_lines_the_first_completes_the_verdict() -> None:
    lines = (("pass", literal("GOOD")[0]), ("fail", literal("BAD")[0]))
    test = a_test(convention="pattern", verdict_lines=lines, fail_on=literal("PANIC"))
    assert judge(test, seen(6, b"GOOD\nPANIC\nBAD\n")).verdict is PASS


def test_expected_text_beside_verdict_lines_may_come_behind_them() -> None:
    test = a_test(convention="sotest", expect=literal("bye"))
    assert judge(test, seen(0, SOTEST + b"bye")).verdict is PASS
    assert judge(test, seen(0, SOTEST)).reason == "the guest has not printed 'bye'"
    assert boot_of(test).stop_all == boot_of(test).stop_any == ()


def test_reason_is_the_whole_verdict_line() -> None:
    test = a_test(convention="pattern", verdict_lines=(("pass", regex("^OK")[0]),))
    assert judge(test, seen(0, b"OK 3 tests\r\nrest")).reason == "OK 3 tests"
    assert judge(test, seen(0, b"OK 3 tests")).reason == "OK 3 tests"


def test_dialogue_does_not_matter_once_the_verdict_is_complete() -> None:
    steps = (Step(literal("login:")[0], b"x"),)
    assert judge(a_test(expect=literal("a"), dialogue=steps), seen(0, b"a")).verdict is PASS
    assert judge(a_test(convention="sotest", dialogue=steps), seen(0, SOTEST)).verdict is PASS
    assert judge(a_test(convention="tap", dialogue=steps), seen(0, b"1..1\nok 1\n")).verdict is FAIL


def test_dialogue_that_was_not_finished_fails() -> None:
    test = a_test(dialogue=(Step(literal("login:")[0], b"root\n"), Step(literal("# ")[0], b"x")))
    assert judge(test, seen(0, steps_done=2)).verdict is PASS
    assert (
        judge(test, seen(0, steps_done=1)).reason
        == "the guest ended before the dialogue: '# ' was not printed"
    )
    assert judge(test, seen(6, steps_done=1)).verdict is CRASH


TESTS = st.sampled_from(
    [
        a_test(expect=literal("ab")),
        a_test(expect=(*literal("a"), *regex("b+$"))),
        a_test(expect=literal("ab", "c"), fail_on=literal("xx")),
        a_test(expect=regex("^a"), fail_on=regex("c$")),
        a_test(convention="pattern", verdict_lines=(("pass", literal("ab")[0]), ("fail", regex("x.*x")[0]))),
        a_test(convention="pattern", verdict_lines=(("pass", regex("^ab")[0]),), fail_on=literal("xx")),
        a_test(
            convention="pattern",
            verdict_lines=(("pass", literal("ab")[0]), ("fail", literal("c")[0])),
            fail_on=literal("x"),
        ),
        a_test(convention="lk"),
        a_test(convention="sotest", fail_on=literal("xx")),
    ]
)
PIECES = st.lists(
    st.one_of(
        st.text("abcx\r\n", max_size=4).map(str.encode),
        st.sampled_from(
            [SOTEST, b"SUCCESS!  All test cases passed!\r\n", b"CASES: 1 SUCCESS: 0 FAILED: 1\n"]
        ),
    ),
    max_size=12,
)


@given(TESTS, PIECES)
def test_a_boot_that_is_ended_early_has_the_verdict_of_one_that_is_not(
    test: Test, pieces: list[bytes]
) -> None:
    boot = boot_of(test)
    watch = OutputWatch(boot.dialogue, boot.stop_all, boot.stop_any)
    shown = b""
    for piece in pieces:
        shown += piece
        watch.feed(piece)
        if watch.stop:
            break
    whole = judge(test, seen(0, b"".join(pieces)))
    early = judge(test, seen(130, shown, "ended", stopped=True)) if watch.stop else whole
    assert early == whole


# --- Several boots ---------------------------------------------------------------------------------------


def attempts(*verdicts: Verdict) -> list[Attempt]:
    return [
        Attempt(seen(0, str(number).encode()), Judgement(one, "" if one is PASS else f"reason {number}"))
        for number, one in enumerate(verdicts)
    ]


@pytest.mark.parametrize(
    ("values", "verdicts", "verdict", "reason", "decisive"),
    [
        ({}, (PASS,), PASS, "", 0),
        ({}, (FAIL,), FAIL, "reason 0", 0),
        ({}, (SKIP,), SKIP, "reason 0", 0),
        ({}, (FAIL, PASS), Verdict.FLAKY, "1 of 2 boots passed; else: reason 0", 0),
        ({}, (PASS, PASS, TIMEOUT), Verdict.FLAKY, "2 of 3 boots passed; else: reason 2", 2),
        ({}, (CRASH, FAIL), CRASH, "reason 0", 0),
        (
            {"allow_flaky": True},
            (FAIL, PASS),
            PASS,
            "flaky, which is allowed: 1 of 2 boots passed; else: reason 0",
            0,
        ),
        ({"allow_flaky": True}, (FAIL, FAIL), FAIL, "reason 0", 0),
        ({"tolerate": "issue 7"}, (FAIL,), Verdict.TOLERATED, "issue 7 (fail: reason 0)", 0),
        (
            {"tolerate": "issue 7"},
            (PASS, FAIL),
            Verdict.TOLERATED,
            "issue 7 (flaky: 1 of 2 boots passed; else: reason 1)",
            1,
        ),
        ({"tolerate": "issue 7"}, (PASS,), PASS, "", 0),
        ({"tolerate": "issue 7"}, (ERROR,), ERROR, "reason 0", 0),
        ({"tolerate": "issue 7"}, (PASS, ERROR), Verdict.FLAKY, "1 of 2 boots passed; else: reason 1", 1),
        ({"tolerate": "issue 7"}, (FAIL, ERROR, ERROR), ERROR, "reason 1", 1),
        ({"tolerate": "issue 7"}, (ERROR, FAIL), ERROR, "reason 0", 0),
        (
            {"tolerate": "issue 7"},
            (FAIL, PASS, ERROR),
            Verdict.FLAKY,
            "1 of 3 boots passed; else: reason 2",
            2,
        ),
        ({}, (FAIL, ERROR), FAIL, "reason 0", 0),
        ({}, (PASS, SKIP), Verdict.FLAKY, "1 of 2 boots passed; else: reason 1", 1),
        ({}, (SKIP, PASS, PASS), Verdict.FLAKY, "2 of 3 boots passed; else: reason 0", 0),
        ({}, (SKIP, SKIP), SKIP, "reason 0", 0),
        ({}, (SKIP, FAIL), FAIL, "reason 1", 1),
        ({"tolerate": "issue 7"}, (SKIP,), SKIP, "reason 0", 0),
    ],
)
def test_several_boots_make_one_result(
    values: dict[str, Any], verdicts: tuple[Verdict, ...], verdict: Verdict, reason: str, decisive: int
) -> None:
    made = attempts(*verdicts)
    result = conclude(a_test(**values), made)
    assert (result.verdict, result.reason) == (verdict, reason)
    assert result.decisive == made[decisive]
    assert (result.boots, result.passed, result.seconds) == (
        len(made),
        verdicts.count(PASS),
        float(len(made)),
    )


@pytest.mark.parametrize("convention", sorted(CONVENTIONS))
def test_start_that_failed_is_an_error_whatever_it_has_printed(convention: str) -> None:
    printed = b"".join((b"ok\nPANIC\n", SOTEST, b"1..1\nok 1\nSUCCESS!  All test cases passed\n"))
    test = a_test(convention=convention, expect=literal("ok"), fail_on=literal("PANIC"), statuses=(33,))
    for status in (0, 1, 33, 83, 4, 124):
        found = judge(test, seen(status, printed, "the start is not there", start_failed=True))
        assert found == Judgement(ERROR, "the start is not there")


def test_time_limit_of_the_session_is_that_of_starts_too() -> None:
    test = a_test(start=a_start())
    assert boot_of(test).start == test.start
    assert boot_of(test, timeout=2.5).start == a_start(timeout=2.5)
