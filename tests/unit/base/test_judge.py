"""The judge: the first decisive event in the order of the guest's writes wins."""

from __future__ import annotations

from functools import partial

import pytest

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import (
    CLEAN,
    DEVICE_FAILED,
    EXPECTED_SEEN,
    GUEST_CRASHED,
    INTERRUPTED,
    KVMBOX_FAILED,
    TIMED_OUT,
    UNEXPECTED,
    UNKNOWN_EXIT,
    Outcome,
)

STOP = Outcome(CLEAN, "the guest shut down")


class Bench:
    """A judge, what it shows, and how often it has held an event."""

    def __init__(
        self, expect: tuple[bytes, ...] = (), fail_on: tuple[bytes, ...] = (), status: int | None = None
    ) -> None:
        self.judge = Judge(expect, fail_on, success_status=status)
        self.shown = b""
        self.held = 0

    def connect(self, *paced: str) -> None:
        self.judge.connect(self.hold, paced=paced)

    def hold(self) -> None:
        self.held += 1

    def show(self, data: bytes) -> None:
        self.shown += data

    def printed(self, data: bytes, port: str = "COM1") -> None:
        self.judge.printed(port, data, self.show)

    @property
    def status(self) -> int | None:
        return None if self.judge.outcome is None else self.judge.verdict.status


def test_expected_text_decides_at_its_last_byte() -> None:
    bench = Bench((b"ok",))
    bench.printed(b"all ok, and more")
    assert (bench.status, bench.shown) == (CLEAN, b"all ok")


def test_text_that_ends_first_decides_whichever_begins_first() -> None:
    for expect, fail_on, output, status in (
        (b"ok", b"panic", b"ok panic", CLEAN),
        (b"ok", b"panic", b"panic ok", UNEXPECTED),
        (b"ic", b"panic!!", b"panic!!", CLEAN),
    ):
        bench = Bench((expect,), (fail_on,))
        bench.printed(output)
        assert bench.status == status


@pytest.mark.parametrize("texts", [(b"panic", b"ic"), (b"ic", b"panic"), (b"ic", b"ic")])
def test_fatal_text_wins_where_one_byte_completes_two(texts: tuple[bytes, bytes]) -> None:
    bench = Bench(texts[:1], texts[1:])
    bench.printed(b"panic")
    assert bench.status == UNEXPECTED
    assert f"the guest printed {texts[1].decode()!r} (--fail-on)" in bench.judge.verdict.reason


def test_fatal_text_before_the_last_expected_one_decides() -> None:
    bench = Bench((b"one", b"two"), (b"BUG",))
    bench.printed(b"one BUG two")
    assert bench.status == UNEXPECTED


def test_port_in_which_no_text_counts_is_shown_until_the_end_of_the_run() -> None:
    bench = Bench((b"ok",))
    bench.judge.printed("COM2", b"ok", bench.show, searched=False)
    assert bench.status is None
    bench.printed(b"ok")
    bench.judge.printed("COM2", b"lost", bench.show, searched=False)
    assert bench.shown == b"okok"


def test_fatal_text_on_the_screen_wins_over_an_expected_one() -> None:
    bench = Bench((b"ok",), (b"panic",))
    bench.judge.look(b"ok\0panic")
    assert bench.status == UNEXPECTED


def test_screen_before_the_guest_goes_on_is_no_news() -> None:
    bench = Bench((b"ok",))
    bench.judge.ignore(b"ok")
    bench.judge.look(b"ok")
    assert bench.status is None
    bench.judge.look(b"")
    bench.judge.look(b"ok")
    assert bench.status == CLEAN


# --- What is held -----------------------------------------------------------------------------------------


def test_end_waits_for_the_screen() -> None:
    for screen, status in ((b"", UNEXPECTED), (b"ok", CLEAN), (b"ok BUG", UNEXPECTED)):
        bench = Bench((b"ok",), (b"BUG",))
        bench.connect()
        bench.judge.ends(STOP)
        assert (bench.held, bench.judge.is_unsettled, bench.status) == (1, True, None)
        bench.judge.look(screen)
        bench.judge.settle()
        assert (bench.judge.is_held, bench.status) == (False, status)


def test_end_of_a_run_without_texts_waits_for_nothing() -> None:
    bench = Bench()
    bench.connect("COM1")
    bench.judge.ends(STOP)
    assert (bench.held, bench.status) == (0, CLEAN)


def test_what_a_paced_uart_still_held_was_written_before() -> None:
    for fatal in (b"", b"BUG"):
        bench = Bench((b"ok",), (b"BUG",))
        bench.connect("COM1")
        bench.printed(fatal, "debugcon")
        bench.judge.ends(STOP)
        bench.printed(b"not this", "debugcon")
        bench.printed(b"and ok!", "COM1")
        bench.judge.settle()
        assert bench.status == CLEAN
        assert bench.shown.endswith(b"and ok")


def test_text_of_a_paced_uart_waits_for_nothing() -> None:
    bench = Bench((b"ok",))
    bench.connect("COM1")
    bench.printed(b"ok")
    assert (bench.held, bench.status) == (0, CLEAN)


def test_output_behind_the_end_that_is_held_does_not_belong_to_the_run() -> None:
    bench = Bench((b"ok",))
    bench.connect()
    bench.judge.ends(STOP)
    bench.printed(b"ok")
    bench.judge.settle()
    assert (bench.status, bench.shown) == (UNEXPECTED, b"")


def test_reset_goes_on_when_nothing_was_decided_before_it() -> None:
    for screen, resets, status in ((b"", 1, None), (b"ok", 0, CLEAN)):
        bench = Bench((b"ok",))
        bench.connect()
        done: list[int] = []
        bench.judge.leaves(partial(done.append, 1))
        assert done == []
        bench.judge.look(screen)
        bench.judge.settle()
        assert (len(done), bench.status) == (resets, status)
        bench.printed(b"ok")
        assert bench.status == CLEAN


@pytest.mark.parametrize("status", [DEVICE_FAILED, KVMBOX_FAILED, TIMED_OUT, INTERRUPTED])
def test_what_kvmbox_decides_is_decided_at_once(status: int) -> None:
    bench = Bench((b"ok",))
    bench.connect()
    bench.judge.ends(STOP)
    bench.judge.decide(Outcome(status, "kvmbox's own"))
    bench.judge.look(b"ok")
    bench.judge.settle()
    bench.printed(b"ok")
    assert bench.status == status


# --- Triggers ---------------------------------------------------------------------------------------------


def test_work_of_a_trigger_is_done_before_the_same_byte_decides() -> None:
    for expect, fail_on, status in (((b"ok",), (), CLEAN), ((), (b"k",), UNEXPECTED)):
        bench = Bench(expect, fail_on)
        bench.connect()
        bench.judge.watch(b"ok", bench.judge.begin_work)
        bench.printed(b"ok more")
        assert (bench.held, bench.status, bench.shown) == (1, None, b"ok")
        bench.judge.settle()
        assert bench.status is None
        bench.judge.end_work()
        assert bench.status == status


def test_trigger_that_stops_the_run_decides_at_its_byte() -> None:
    bench = Bench((b"never",), (b"BUG",), status=33)
    stop = Outcome(CLEAN, "stopped")
    bench.judge.watch(b"here", lambda: stop)
    bench.printed(b"here BUG")
    assert (bench.judge.verdict, bench.shown) == (stop, b"here")


def test_fatal_text_wins_over_a_trigger_that_stops_at_the_same_byte() -> None:
    bench = Bench((), (b"ere",))
    bench.judge.watch(b"here", lambda: Outcome(CLEAN, "stopped"))
    bench.printed(b"here")
    assert bench.status == UNEXPECTED


@pytest.mark.parametrize(("limit", "calls"), [(2, 0), (3, 1), (4, 1)])
def test_trigger_behind_the_limit_in_the_same_piece_is_not_called(limit: int, calls: int) -> None:
    bench = Bench()
    called: list[int] = []
    bench.judge.limits(1)
    bench.judge.watch(b"here", lambda: called.append(1))

    def show(data: bytes) -> None:
        bench.show(data)
        if len(bench.shown) > limit:
            bench.judge.exceed(Outcome(UNEXPECTED, "too much"))

    bench.judge.printed("COM1", b"here", show)
    assert (len(called), bench.status) == (calls, None if limit == 4 else UNEXPECTED)


def test_trigger_is_called_once_and_not_behind_the_end() -> None:
    bench = Bench()
    called: list[int] = []
    bench.judge.watch(b"here", lambda: called.append(1))
    for _ in range(2):
        bench.printed(b"here")
    bench.judge.watch(b"late", lambda: called.append(2))
    bench.judge.ends(STOP)
    bench.printed(b"late")
    assert called == [1]


def test_no_trigger_is_called_when_the_machine_is_gone() -> None:
    bench = Bench()
    bench.connect()
    bench.judge.watch(b"here", lambda: Outcome(CLEAN, "stopped"))
    bench.judge.ends(Outcome(GUEST_CRASHED, "triple fault"), gone=True)
    bench.judge.look(b"here")
    bench.judge.settle(finally_=True)
    assert bench.status == GUEST_CRASHED


def test_stop_whose_work_a_crash_makes_impossible_is_none() -> None:
    bench = Bench()
    bench.connect()
    stop = Outcome(CLEAN, "written")

    def work() -> Outcome:
        bench.judge.begin_work()
        return stop

    bench.judge.watch(b"here", work)
    bench.judge.look(b"here")
    bench.judge.ends(Outcome(GUEST_CRASHED, "triple fault"), gone=True)
    bench.judge.settle(finally_=True)
    bench.judge.end_work()
    assert bench.status == GUEST_CRASHED


# --- The verdict ------------------------------------------------------------------------------------------


def ended(outcome: Outcome, *expect: bytes, seen: bytes = b"", status: int | None = None) -> Outcome:
    bench = Bench(expect, status=status)
    bench.printed(seen)
    bench.judge.ends(outcome)
    return bench.judge.verdict


@pytest.mark.parametrize("status", [CLEAN, 1, 33, GUEST_CRASHED])
def test_verdict_without_expectations_is_the_end(status: int) -> None:
    outcome = Outcome(status, "as it was")
    assert ended(outcome) is outcome


@pytest.mark.parametrize("status", [GUEST_CRASHED, UNKNOWN_EXIT])
def test_verdict_on_a_guest_that_crashed_stays_whatever_was_expected(status: int) -> None:
    outcome = Outcome(status, "it crashed")
    assert ended(outcome, b"x", status=33) is outcome


@pytest.mark.parametrize("status", [CLEAN, 33])
def test_guest_that_ended_before_its_texts_is_unexpected(status: int) -> None:
    found = ended(Outcome(status, "the guest shut down"), b"one", b"login:", seen=b"one", status=33)
    assert found == Outcome(UNEXPECTED, "the guest shut down, but had not printed 'login:'", error=True)


def test_success_status_turns_into_clean() -> None:
    found = ended(Outcome(33, "the guest wrote 0x10"), status=33)
    assert found == Outcome(CLEAN, "the guest wrote 0x10, as --success-status wants")


@pytest.mark.parametrize("status", [CLEAN, 1, 35])
@pytest.mark.parametrize("expect", [(), (b"ok",)])
def test_any_other_end_than_the_success_status_is_unexpected(status: int, expect: tuple[bytes, ...]) -> None:
    found = ended(Outcome(status, "it ended"), *expect, seen=b"ok", status=33)
    assert found == Outcome(UNEXPECTED, "it ended, but --success-status wants 33", error=True)


def test_expected_texts_do_not_end_a_run_with_a_success_status() -> None:
    bench = Bench((b"ok",), (b"BUG",), status=33)
    bench.printed(b"ok")
    assert bench.status is None
    bench.judge.ends(Outcome(33, "the guest wrote 0x10"))
    assert bench.status == CLEAN


def test_all_texts_seen_says_so() -> None:
    bench = Bench((b"ok",))
    bench.printed(b"ok")
    assert bench.judge.verdict == Outcome(CLEAN, EXPECTED_SEEN)
