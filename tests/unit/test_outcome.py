"""The decision: the first decisive event wins; and what was expected of a run judges it."""

from __future__ import annotations

import threading

import pytest

from kvmbox.outcome import (
    CLEAN,
    DEVICE_FAILED,
    EXPECTED_SEEN,
    GUEST_CRASHED,
    INTERRUPTED,
    KVMBOX_FAILED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Decision,
    Expectations,
    Outcome,
    debug_exit_status,
)


@pytest.mark.parametrize(
    ("value", "status"),
    [(0, 1), (1, 3), (0x10, 33), (0x7F, 255), (0x80, 1), (0xFF, 255), (0xFFFF_FFFF, 255), (0x1_00, 1)],
)
def test_debug_exit_status_is_the_isa_debug_exit_rule(value: int, status: int) -> None:
    assert debug_exit_status(value) == status


def test_debug_exit_status_is_odd_for_every_byte() -> None:
    assert all(debug_exit_status(value) % 2 == 1 for value in range(256))


def test_decide_first_outcome_stays() -> None:
    decision = Decision()
    first = Outcome(33, "the guest wrote 0x10")
    assert decision.outcome is None
    assert decision.decide(first)
    assert not decision.decide(Outcome(TIMED_OUT, "too late"))
    assert decision.outcome is first


def test_decide_calls_every_hook_once_with_the_outcome_set() -> None:
    decision = Decision()
    seen: list[tuple[str, Outcome | None]] = []
    decision.on_decided(lambda: seen.append(("one", decision.outcome)))
    decision.on_decided(lambda: seen.append(("two", decision.outcome)))
    outcome = Outcome(CLEAN, "done")
    decision.decide(outcome)
    decision.decide(Outcome(UNEXPECTED, "again"))
    assert seen == [("one", outcome), ("two", outcome)]


def test_decide_hook_may_propose_another_outcome_without_a_deadlock() -> None:
    decision = Decision()
    answers: list[bool] = []
    decision.on_decided(lambda: answers.append(decision.decide(Outcome(UNEXPECTED, "from the hook"))))
    assert decision.decide(Outcome(CLEAN, "done"))
    assert answers == [False]


def test_decide_by_many_threads_lets_exactly_one_win() -> None:
    decision = Decision()
    calls: list[int] = []
    decision.on_decided(lambda: calls.append(1))
    barrier = threading.Barrier(8)
    wins: list[int] = []

    def propose(number: int) -> None:
        barrier.wait()
        if decision.decide(Outcome(number, "one of many")):
            wins.append(number)

    threads = [threading.Thread(target=propose, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == len(calls) == 1
    assert decision.outcome is not None
    assert decision.outcome.status == wins[0]


def test_judge_without_expectations_changes_nothing() -> None:
    for status in (CLEAN, 1, 33, GUEST_CRASHED, TIMED_OUT):
        outcome = Outcome(status, "as it was")
        assert Expectations().judge(outcome) is outcome


@pytest.mark.parametrize(
    "status", [GUEST_CRASHED, DEVICE_FAILED, UNKNOWN_EXIT, UNEXPECTED, KVMBOX_FAILED, TIMED_OUT, INTERRUPTED]
)
def test_judge_even_status_stays_whatever_was_expected(status: int) -> None:
    outcome = Outcome(status, "kvmbox's own")
    wanted = Expectations(success_status=33, unfulfilled=lambda: True, missing=lambda: "'x'")
    assert wanted.judge(outcome) is outcome


@pytest.mark.parametrize("status", [CLEAN, 33])
def test_judge_guest_that_ended_before_its_text_is_unexpected(status: int) -> None:
    wanted = Expectations(success_status=33, unfulfilled=lambda: True, missing=lambda: "'login:'")
    judged = wanted.judge(Outcome(status, "the guest shut down"))
    assert judged.status == UNEXPECTED
    assert judged.reason == "the guest shut down, but had not printed 'login:'"
    assert judged.error


def test_judge_success_status_turns_into_clean() -> None:
    judged = Expectations(success_status=33).judge(Outcome(33, "the guest wrote 0x10"))
    assert (judged.status, judged.error) == (CLEAN, False)
    assert judged.reason == "the guest wrote 0x10, as --success-status wants"


@pytest.mark.parametrize("status", [CLEAN, 1, 35])
def test_judge_another_status_than_the_wanted_one_is_unexpected(status: int) -> None:
    judged = Expectations(success_status=33).judge(Outcome(status, "it ended"))
    assert (judged.status, judged.error) == (UNEXPECTED, True)
    assert "--success-status wants 33" in judged.reason


def test_judge_all_texts_seen_counts_as_success_beside_a_success_status() -> None:
    outcome = Outcome(CLEAN, EXPECTED_SEEN)
    assert Expectations(success_status=33).judge(outcome) is outcome
