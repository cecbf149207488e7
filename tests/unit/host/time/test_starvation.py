"""Whether a silent process, or the thread that waits for it, can help it: by a /proc of the test's own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvmbox.host.time.starvation import ENOUGH_NS, Starvation

PID = 4711


class Task:
    """The two files of a process or of a thread that are looked at."""

    def __init__(self, root: Path, directory: str = str(PID)) -> None:
        self.root = str(root)
        self._of_process = root / directory
        self._of_process.mkdir(parents=True)

    def set(self, state: str, cpu_ns: int, name: str = "python3") -> None:
        (self._of_process / "stat").write_text(f"{PID} ({name}) {state} 1 {PID} {PID} 0 -1 4194304 100 0\n")
        (self._of_process / "schedstat").write_text(f"{cpu_ns} 987654321 42\n")

    def remove(self, name: str) -> None:
        (self._of_process / name).unlink()


@pytest.fixture
def proc(tmp_path: Path) -> Task:
    return Task(tmp_path)


def watch(task: Task, waiter: int = 0) -> Starvation:
    return Starvation(PID, waiter, task.root)


class Waiter:
    """A thread that does nothing, and its directory in the /proc of the test."""

    def __init__(self, root: Path) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._end.wait)
        self._thread.start()
        assert self._thread.ident
        self.ident = self._thread.ident
        self.task = Task(root, f"self/task/{self._thread.native_id}")

    def end(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def waiter(tmp_path: Path) -> Iterator[Waiter]:
    thread = Waiter(tmp_path)
    yield thread
    thread.end()


@pytest.mark.parametrize(
    ("state", "starved"), [("R", True), ("S", False), ("T", False), ("D", True), ("Z", False)]
)
def test_is_starved_is_who_waits_for_the_host(proc: Task, state: str, starved: bool) -> None:
    proc.set(state, 1_000_000)
    assert watch(proc).is_starved() is starved


def test_is_starved_ends_when_it_has_had_its_chance(proc: Task) -> None:
    # It computes for ever: ready all the time, and let.
    proc.set("R", 5 * ENOUGH_NS)
    starvation = watch(proc)
    assert starvation.is_starved()
    proc.set("R", 6 * ENOUGH_NS - 1)
    assert starvation.is_starved()
    proc.set("R", 6 * ENOUGH_NS)
    assert not starvation.is_starved()


def test_is_starved_counts_no_time_from_before_it_was_watched(proc: Task) -> None:
    proc.set("R", 1_000 * ENOUGH_NS)
    assert watch(proc).is_starved()


@pytest.mark.parametrize("name", ["R", "a) T (b", ") S 1", "(((", "R) R R"])
def test_is_starved_does_not_believe_a_name(proc: Task, name: str) -> None:
    proc.set("T", 0, name)
    assert not watch(proc).is_starved()
    proc.set("R", 0, name)
    assert watch(proc).is_starved()


@pytest.mark.parametrize("gone", ["stat", "schedstat"])
def test_is_starved_without_a_file_there_is_no_excuse(proc: Task, gone: str) -> None:
    proc.set("R", 0)
    starvation = watch(proc)
    proc.remove(gone)
    assert not starvation.is_starved()


def test_is_starved_without_schedstat_from_the_start_there_is_no_excuse(proc: Task) -> None:
    proc.set("R", 0)
    proc.remove("schedstat")
    starvation = watch(proc)
    proc.set("R", 0)
    assert not starvation.is_starved()


@pytest.mark.parametrize("text", ["", "no parentheses", "1 (x)", "1 (x) "])
def test_is_starved_what_cannot_be_read_is_no_excuse(proc: Task, tmp_path: Path, text: str) -> None:
    proc.set("R", 0)
    starvation = watch(proc)
    (tmp_path / str(PID) / "stat").write_text(text)
    assert not starvation.is_starved()


def test_is_starved_a_process_that_runs_has_a_state_and_a_time() -> None:
    # The real /proc: this very process is running, and has not used up its chance since.
    assert Starvation(1 << 22).is_starved() is False  # above all pids (PID_MAX_LIMIT)
    assert Starvation(os.getpid()).is_starved()
    assert Starvation(0, threading.get_ident()).is_starved()
    assert not Starvation(0).is_starved()


def test_is_starved_a_process_has_answered_and_the_thread_that_waits_has_not_run(
    proc: Task, waiter: Waiter
) -> None:
    proc.set("S", 0)
    waiter.task.set("R", 0)
    starvation = watch(proc, waiter.ident)
    assert starvation.is_starved()
    waiter.task.set("S", 0)
    assert not starvation.is_starved()


def test_is_starved_a_thread_that_had_its_chance_is_no_excuse(proc: Task, waiter: Waiter) -> None:
    proc.set("S", 0)
    waiter.task.set("R", ENOUGH_NS)
    starvation = watch(proc, waiter.ident)
    waiter.task.set("R", 2 * ENOUGH_NS)
    assert not starvation.is_starved()


def test_is_starved_one_of_the_two_is_enough(proc: Task, waiter: Waiter) -> None:
    proc.set("R", 0)
    waiter.task.set("S", 0)
    assert watch(proc, waiter.ident).is_starved()


@pytest.mark.parametrize("owes", [0, PID])
def test_is_starved_no_other_thread_is_looked_at(proc: Task, waiter: Waiter, owes: int) -> None:
    proc.set("S", 0)
    waiter.task.set("R", 0)
    assert not Starvation(owes, 0, proc.root).is_starved()


def test_is_starved_a_thread_that_has_ended_is_no_excuse(proc: Task, waiter: Waiter) -> None:
    proc.set("S", 0)
    waiter.task.set("R", 0)
    waiter.end()
    assert not watch(proc, waiter.ident).is_starved()
