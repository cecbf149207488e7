"""Lines that are raised before their model tells of it: each edge is passed on once, whoever is first."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvmbox.base.compiled import why_not_built
from kvmbox.contract.model import NO_RISE
from kvmbox.host.interrupt_lines import InterruptRouter, Source
from kvmbox.host.time.guest_clock import GuestClock
from tests.support.halves import Half, half_of

HOUR = 3_600_000_000_000


class Rig:
    """A router whose controllers note each change."""

    def __init__(self, half: Half) -> None:
        self.clock: GuestClock = half.clock()
        self.router: InterruptRouter = half.router(self.clock)
        self.changes: list[tuple[int, int]] = []
        self.router.attach(lambda gsi, level: self.changes.append((gsi, level)))

    def source(self, gsi: int = 0) -> Source:
        source = self.router.rise_of(self.router.source(gsi))
        assert source is not None
        return source

    def counts(self, gsi: int = 0) -> tuple[int, int]:
        line = self.router.lines[gsi]
        return line.raised, line.coalesced


@pytest.fixture
def rig(half: Half) -> Iterator[Rig]:
    rig = Rig(half)
    yield rig
    rig.router.close()


def test_rise_is_passed_on_once_and_what_the_model_folded_into_it_is_counted(rig: Rig) -> None:
    timer = rig.source()
    timer.announce(5)
    timer.raise_ahead()
    assert rig.changes == [(0, 1)]
    assert timer.at == NO_RISE
    timer(1, 3)
    assert rig.changes == [(0, 1)]
    assert rig.counts() == (1, 3)
    timer(0, 0)
    timer(1, 0)
    assert rig.changes == [(0, 1), (0, 0), (0, 1)]


def test_line_that_is_high_falls_before_it_rises_and_neither_edge_comes_twice(rig: Rig) -> None:
    timer = rig.source()
    timer(1, 0)
    timer.announce(5)
    timer.raise_ahead()
    assert rig.changes == [(0, 1), (0, 0), (0, 1)]
    timer(0, 0)
    timer(1, 0)
    assert rig.changes == [(0, 1), (0, 0), (0, 1)]
    assert rig.counts() == (2, 0)
    timer(0, 0)
    assert rig.changes[-1] == (0, 0)


def test_resumed_line_that_was_high_is_so_when_its_model_does_not_tell_of_a_rise(rig: Rig) -> None:
    timer = rig.source()
    rig.router.resume([(0, timer.bit, -1)])
    timer.announce(5)
    timer.raise_ahead()
    assert rig.changes == [(0, 0), (0, 1)]
    timer.settle()
    assert rig.changes == [(0, 0), (0, 1)]
    assert rig.router.lines[0].is_high


@pytest.mark.parametrize("level", [0, 1])
def test_rise_that_the_model_does_not_tell_of_is_taken_back(rig: Rig, level: int) -> None:
    timer = rig.source()
    timer(level, 0)
    timer.announce(5)
    timer.raise_ahead()
    timer.settle()
    assert rig.router.lines[0].is_high == bool(level)
    before = list(rig.changes)
    timer.settle()
    assert rig.changes == before


def test_fall_that_no_rise_follows_counts_when_the_model_has_had_its_chance(rig: Rig) -> None:
    timer = rig.source()
    timer(1, 0)
    timer.announce(5)
    timer.raise_ahead()
    timer(0, 0)
    assert rig.router.lines[0].is_high
    timer.settle()
    assert not rig.router.lines[0].is_high


def test_announcement_that_was_taken_back_raises_nothing(rig: Rig) -> None:
    timer = rig.source()
    timer.announce(5)
    timer.announce(NO_RISE)
    timer.raise_ahead()
    assert rig.changes == []
    assert rig.counts() == (0, 0)


def test_line_of_another_source_stays_as_it_is(rig: Rig) -> None:
    first, second = rig.source(4), rig.source(4)
    second.announce(5)
    first(1, 0)
    second.raise_ahead()
    second(1, 0)
    first(0, 0)
    assert rig.changes == [(4, 1)]
    assert rig.counts(4) == (1, 0)
    second(0, 0)
    assert rig.changes == [(4, 1), (4, 0)]


def test_source_that_is_cut_off_is_raised_for_the_time_when_it_is_heard_again(rig: Rig) -> None:
    timer = rig.source()
    _, take = rig.router.replacing_source(0)
    timer.announce(5)
    take(1)
    timer.raise_ahead()
    timer(1, 7)
    assert rig.changes == []
    assert rig.counts() == (0, 0)
    take(0)
    assert rig.changes == [(0, 1)]


def test_line_that_rose_between_two_machines_is_high_in_the_next_one(rig: Rig) -> None:
    timer = rig.source()
    timer.announce(5)
    rig.router.detach()
    timer.raise_ahead()
    rig.router.attach(lambda gsi, level: rig.changes.append((gsi, level)))
    assert rig.changes == [(0, 1)]


# --- The thread, which only compiled code has ----------------------------------------------------------


class Threaded(Rig):
    """A router with its thread, beside a clock that runs. `finish` returns when the thread has ended.

    Its end has the thread look at all announcements once more.
    """

    def __init__(self, half: Half) -> None:
        super().__init__(half)
        from kvmbox.fast.vmm import Lock

        self.lock: Any = Lock()
        self.timer = self.source()
        self.timer.guarded_by(self.lock)
        self.clock.release()
        self.confined: list[str] = []

    def start(self, cpu: int | None = None) -> None:
        self.router.start(cpu=cpu, confine=lambda: self.confined.append("yes"))

    def finish(self) -> tuple[int, int]:
        self.router.close()
        return self.counts()


@pytest.fixture
def threaded() -> Iterator[Threaded]:
    half = half_of("compiled")
    if half is None:
        pytest.skip(f"compiled: {why_not_built()}")
    rig = Threaded(half)
    yield rig
    rig.router.close()


def test_thread_raises_what_is_due_and_the_report_of_the_model_adds_nothing(threaded: Threaded) -> None:
    threaded.start()
    threaded.timer.announce(threaded.clock.now())
    assert threaded.finish() == (1, 0)
    assert threaded.confined == ["yes"]
    assert threaded.timer.at == NO_RISE
    assert threaded.changes == []  # the thread calls KVM itself, and here is none
    threaded.timer(1, 2)
    assert threaded.counts() == (1, 2)
    assert threaded.changes == []


def test_thread_raises_what_was_announced_before_it_started(threaded: Threaded) -> None:
    threaded.timer.announce(threaded.clock.now())
    threaded.start()
    assert threaded.finish() == (1, 0)


def test_thread_raises_nothing_before_its_time(threaded: Threaded) -> None:
    threaded.start()
    threaded.timer.announce(threaded.clock.now() + HOUR)
    assert threaded.finish() == (0, 0)


def test_thread_that_wakes_early_waits_for_the_rise(threaded: Threaded) -> None:
    threaded.start()
    for count in range(1, 50):  # it learns how long the host takes to wake it
        rise = threaded.clock.now() + 200_000
        with threaded.lock:
            threaded.timer.announce(rise)
        threaded.router.rearm()
        while threaded.timer.at != NO_RISE:
            os.sched_yield()
        assert threaded.clock.now() >= rise
        threaded.timer(1, 0)
        threaded.timer(0, 0)
        assert threaded.counts() == (count, 0)


@pytest.fixture
def allowed() -> Iterator[set[int]]:
    """The CPUs of this thread, which the test may change."""
    found = os.sched_getaffinity(0)
    yield found
    os.sched_setaffinity(0, found)


def _cpu_of_this_thread() -> int:
    """proc_pid_stat(5): field 39."""
    return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])


def test_work_steps_aside_from_the_cpu_of_the_thread(threaded: Threaded, allowed: set[int]) -> None:
    if len(allowed) == 1:
        pytest.skip("one CPU")
    cpu = min(allowed)
    threaded.start(cpu)

    def steps_aside() -> bool:
        os.sched_setaffinity(0, {cpu})
        os.sched_setaffinity(0, allowed)
        threaded.router.step_aside()
        assert os.sched_getaffinity(0) == allowed
        return _cpu_of_this_thread() != cpu

    assert any(steps_aside() for _ in range(100))  # the scheduler may bring it back


def test_work_that_has_one_cpu_stays(threaded: Threaded, allowed: set[int]) -> None:
    cpu = min(allowed)
    threaded.start(cpu)
    os.sched_setaffinity(0, {cpu})
    threaded.router.step_aside()
    assert os.sched_getaffinity(0) == {cpu}


def test_thread_raises_nothing_while_the_clock_stands_still(threaded: Threaded) -> None:
    threaded.start()
    threaded.clock.hold()
    threaded.timer.announce(threaded.clock.now())
    assert threaded.finish() == (0, 0)


def test_thread_raises_nothing_beyond_the_loan_and_rests_until_there_is_another(threaded: Threaded) -> None:
    clock, timer = threaded.clock, threaded.timer
    clock.lend(0)
    end = clock.now()
    timer.announce(end + 1)
    threaded.start()
    assert clock.now() == end
    assert threaded.counts() == (0, 0)
    assert clock.lend(HOUR)
    threaded.router.rearm()
    assert threaded.finish() == (1, 0)


def test_announcement_taken_back_under_the_lock_of_the_channel_is_never_raised(threaded: Threaded) -> None:
    threaded.start()
    with threaded.lock:
        threaded.timer.announce(threaded.clock.now())
        threaded.timer.announce(NO_RISE)
    assert threaded.finish() == (0, 0)


def test_thread_leaves_a_source_alone_that_another_announced_one_may_hold_high(threaded: Threaded) -> None:
    other = threaded.source()
    other.announce(HOUR)
    threaded.start()
    threaded.timer.announce(threaded.clock.now())
    assert threaded.finish() == (0, 0)


def test_thread_that_kvm_refuses_leaves_the_rise_to_the_report_of_the_model(threaded: Threaded) -> None:
    threaded.router.attach(lambda gsi, level: threaded.changes.append((gsi, level)), descriptor=1 << 20)
    threaded.start()
    threaded.timer.announce(threaded.clock.now())
    assert threaded.finish() == (0, 0)
    threaded.timer(1, 0)
    assert threaded.changes == [(0, 1)]


def test_end_of_a_router_whose_thread_never_started_is_no_error(threaded: Threaded) -> None:
    threaded.router.close()
    threaded.router.close()
    assert threaded.counts() == (0, 0)


def test_thread_and_models_that_report_at_the_same_time_leave_no_line_wrong(threaded: Threaded) -> None:
    sources = [threaded.timer, threaded.source(1), threaded.source(2)]
    locks: list[Any] = [threaded.lock, type(threaded.lock)(), type(threaded.lock)()]
    rounds = 300
    for source, lock in zip(sources, locks, strict=True):
        source.guarded_by(lock)

    def model(source: Source, lock: Any) -> None:
        for count in range(rounds):
            with lock:
                source.announce(threaded.clock.now() + count % 7 * 1_000)
            with lock:  # the thread was here, or was not
                source(1, 0)
                source(0, 0)
                source.announce(NO_RISE)
                source.settle()

    threaded.start()
    threads = [threading.Thread(target=model, args=pair) for pair in zip(sources, locks, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threaded.router.close()
    for gsi in range(3):
        # Each rise once, whether the thread or the report was first.
        assert threaded.counts(gsi) == (rounds, 0)
        assert not threaded.router.lines[gsi].is_high
