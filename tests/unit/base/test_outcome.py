"""The decision: the first one wins."""

from __future__ import annotations

import threading

import pytest

from kvmbox.base.outcome import CLEAN, TIMED_OUT, UNEXPECTED, Decision, Outcome, debug_exit_status


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
