"""The state of a session: retries, repeats, skips, and what becomes of tests when it stops."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.tools.smoke.report.progress import Progress
from kvmbox.tools.smoke.suite.test_case import Judgement, Observation, Test, TestResult, Verdict
from tests.support.smoke import a_test, seen

GOOD, BAD = seen(0, b"output"), seen(1, b"bad")


def begin(session: Progress) -> Test:
    found = session.next()
    assert isinstance(found, Test)
    return found


def test_tests_are_booted_in_order_and_judged() -> None:
    session = Progress([a_test("a"), a_test("b")])
    first, second = begin(session), begin(session)
    assert (first.name, second.name, session.next()) == ("a", "b", None)
    _, result = session.ended(second, BAD)
    assert result is not None
    assert result.verdict is Verdict.FAIL
    assert not session.finished
    session.ended(first, GOOD)
    assert session.finished
    assert [one.test.name for one in session.results] == ["b", "a"]
    assert session.abandon() == []


def test_skipped_test_is_a_result_at_once() -> None:
    session = Progress([a_test("a", skip="no"), a_test("b")], skip=lambda test: test.skip)
    found = session.next()
    assert isinstance(found, TestResult)
    assert (found.verdict, found.reason, found.boots) == (Verdict.SKIP, "no", 0)
    assert begin(session).name == "b"


def test_guest_that_cannot_be_judged_is_one_error_and_the_session_goes_on() -> None:
    def judge(_test: Test, seen: Observation) -> Judgement:
        if seen is BAD:
            raise ValueError("too many digits")
        return Judgement(Verdict.PASS)

    session = Progress([a_test("a"), a_test("b")], judge=judge)
    session.ended(begin(session), BAD)
    session.ended(begin(session), GOOD)
    assert [one.verdict for one in session.results] == [Verdict.ERROR, Verdict.PASS]
    assert session.results[0].reason == "kvmbox cannot judge this guest: ValueError: too many digits"
    assert session.results[0].decisive is not None
    assert session.results[0].decisive.observation == BAD


def test_failure_is_tried_again_before_the_next_test() -> None:
    session = Progress([a_test("a", retries=2), a_test("b")])
    a = begin(session)
    _, result = session.ended(a, BAD)
    assert result is None
    assert begin(session).name == "a"
    _, result = session.ended(a, GOOD)
    assert result is not None
    assert (result.verdict, result.boots, result.passed) == (Verdict.FLAKY, 2, 1)
    assert result.decisive is not None
    assert result.decisive.observation == BAD
    assert begin(session).name == "b"


def test_retry_goes_before_tests_that_wait_also_where_others_run() -> None:
    session = Progress([a_test("a", retries=1), a_test("b"), a_test("c")])
    a, _ = begin(session), begin(session)
    session.ended(a, BAD)
    assert [begin(session).name, begin(session).name] == ["a", "c"]


def test_retries_end() -> None:
    session = Progress([a_test("a", retries=1)])
    a = begin(session)
    assert session.ended(a, BAD)[1] is None
    begin(session)
    _, result = session.ended(a, BAD)
    assert result is not None
    assert (result.verdict, result.boots) == (Verdict.FAIL, 2)
    assert session.next() is None


def test_skip_by_the_guest_is_not_tried_again() -> None:
    session = Progress([a_test("a", retries=5, convention="kvm-unit-tests")])
    _, result = session.ended(begin(session), seen(77))
    assert result is not None
    assert result.verdict is Verdict.SKIP


def test_repeat_boots_all_and_reports_once() -> None:
    session = Progress([a_test("a", retries=5)], repeat=3)
    a = begin(session)
    assert begin(session) is begin(session) is a
    assert session.next() is None
    assert session.ended(a, GOOD)[1] is None
    assert session.ended(a, BAD)[1] is None
    _, result = session.ended(a, GOOD)
    assert result is not None
    assert (result.verdict, result.boots, result.passed) == (Verdict.FLAKY, 3, 2)
    assert session.finished


def test_output_of_boots_that_nobody_is_told_of_is_not_kept() -> None:
    session = Progress([a_test("a")], repeat=3)
    a = begin(session)
    for _ in range(2):
        begin(session)
    session.ended(a, GOOD)
    attempt, _ = session.ended(a, GOOD)
    assert attempt.observation == GOOD  # whoever hears of it now may look at it
    _, result = session.ended(a, BAD)
    assert result is not None
    assert result.decisive is not None
    assert result.decisive.observation.output == b"bad"


def test_output_of_the_first_boot_that_skipped_is_kept_among_those_that_passed() -> None:
    session = Progress([a_test("a", convention="kvm-unit-tests")], repeat=3)
    a = begin(session)
    for _ in range(2):
        begin(session)
    session.ended(a, seen(1, b"passed"))
    session.ended(a, seen(77, b"skipped"))
    _, result = session.ended(a, seen(1, b"passed"))
    assert result is not None
    assert result.verdict is Verdict.FLAKY
    assert result.decisive is not None
    assert result.decisive.observation.output == b"skipped"


def test_fail_fast_stops_at_a_result_and_not_at_a_retry() -> None:
    session = Progress([a_test("a", retries=1), a_test("b")], fail_fast=True)
    a = begin(session)
    session.ended(a, BAD)
    assert session.stopped is None
    begin(session)
    session.ended(a, BAD)
    assert session.stopped == "--fail-fast"
    assert session.next() is None
    (left,) = session.abandon()
    assert (left.test.name, left.verdict, left.reason) == ("b", Verdict.NOT_RUN, "not run: --fail-fast")


def test_fail_fast_at_the_last_test_stops_nothing() -> None:
    session = Progress([a_test("a")], fail_fast=True)
    session.ended(begin(session), BAD)
    assert session.stopped is None


def test_tolerated_failure_does_not_stop() -> None:
    session = Progress([a_test("a", tolerate="issue"), a_test("b")], fail_fast=True)
    session.ended(begin(session), BAD)
    assert begin(session).name == "b"


def test_stopped_session_says_what_was_not_finished() -> None:
    session = Progress([a_test("a"), a_test("b"), a_test("c")], repeat=2)
    a = begin(session)
    session.ended(a, GOOD)
    begin(session)
    b = begin(session)
    assert b.name == "b"
    session.stop("interrupted")
    session.stop("something else")
    assert {one.test.name: one.reason for one in session.abandon()} == {
        "a": "not finished: interrupted",
        "b": "not finished: interrupted",
        "c": "not run: interrupted",
    }
    assert session.finished
    assert [one.boots for one in session.results] == [1, 0, 0]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=5),
    st.integers(1, 3),
    st.booleans(),
    st.data(),
)
def test_every_test_has_one_result_whatever_happens(
    made: list[tuple[int, bool]], repeat: int, fail_fast: bool, data: st.DataObject
) -> None:
    tests = [
        a_test(f"t{number}", retries=retries, skip="no" if skipped else None)
        for number, (retries, skipped) in enumerate(made)
    ]
    session = Progress(tests, repeat=repeat, fail_fast=fail_fast)
    running: list[Test] = []
    while True:
        found = session.next()
        if isinstance(found, Test):
            running.append(found)
        if not running and found is None:
            break
        if running and (found is None or data.draw(st.booleans(), "a boot ends")):
            ended = running.pop(data.draw(st.integers(0, len(running) - 1), "which"))
            if session.stopped is None:
                session.ended(ended, data.draw(st.sampled_from([GOOD, BAD]), "how"))
        if data.draw(st.integers(0, 20), "stop") == 20:
            session.stop("enough")
    session.abandon()
    assert sorted(result.test.name for result in session.results) == sorted(test.name for test in tests)
    for result in session.results:
        if result.verdict.has_run:
            assert result.boots >= 1
            assert result.boots <= (repeat if repeat > 1 else result.test.retries + 1)
