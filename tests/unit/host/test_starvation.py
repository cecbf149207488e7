"""Whether a silent process can help it, by a /proc of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvmbox.host.starvation import ENOUGH_NS, Starvation

PID = 4711


class Proc:
    """The two files of a process that are looked at."""

    def __init__(self, directory: Path) -> None:
        self.root = str(directory)
        self._of_process = directory / str(PID)
        self._of_process.mkdir()

    def set(self, state: str, cpu_ns: int, name: str = "python3") -> None:
        (self._of_process / "stat").write_text(f"{PID} ({name}) {state} 1 {PID} {PID} 0 -1 4194304 100 0\n")
        (self._of_process / "schedstat").write_text(f"{cpu_ns} 987654321 42\n")

    def remove(self, name: str) -> None:
        (self._of_process / name).unlink()


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


@pytest.mark.parametrize(
    ("state", "starved"), [("R", True), ("S", False), ("T", False), ("D", False), ("Z", False)]
)
def test_is_starved_is_who_is_ready_and_not_let(proc: Proc, state: str, starved: bool) -> None:
    proc.set(state, 1_000_000)
    assert Starvation(PID, proc.root).is_starved() is starved


def test_is_starved_ends_when_it_has_had_its_chance(proc: Proc) -> None:
    # It computes for ever: ready all the time, and let.
    proc.set("R", 5 * ENOUGH_NS)
    starvation = Starvation(PID, proc.root)
    assert starvation.is_starved()
    proc.set("R", 6 * ENOUGH_NS - 1)
    assert starvation.is_starved()
    proc.set("R", 6 * ENOUGH_NS)
    assert not starvation.is_starved()


def test_is_starved_counts_no_time_from_before_it_was_watched(proc: Proc) -> None:
    proc.set("R", 1_000 * ENOUGH_NS)
    assert Starvation(PID, proc.root).is_starved()


@pytest.mark.parametrize("name", ["R", "a) T (b", ") S 1", "(((", "R) R R"])
def test_is_starved_does_not_believe_a_name(proc: Proc, name: str) -> None:
    proc.set("T", 0, name)
    assert not Starvation(PID, proc.root).is_starved()
    proc.set("R", 0, name)
    assert Starvation(PID, proc.root).is_starved()


@pytest.mark.parametrize("gone", ["stat", "schedstat"])
def test_is_starved_without_a_file_there_is_no_excuse(proc: Proc, gone: str) -> None:
    proc.set("R", 0)
    starvation = Starvation(PID, proc.root)
    proc.remove(gone)
    assert not starvation.is_starved()


def test_is_starved_without_schedstat_from_the_start_there_is_no_excuse(proc: Proc) -> None:
    proc.set("R", 0)
    proc.remove("schedstat")
    starvation = Starvation(PID, proc.root)
    proc.set("R", 0)
    assert not starvation.is_starved()


@pytest.mark.parametrize("text", ["", "no parentheses", "1 (x)", "1 (x) "])
def test_is_starved_what_cannot_be_read_is_no_excuse(proc: Proc, tmp_path: Path, text: str) -> None:
    proc.set("R", 0)
    starvation = Starvation(PID, proc.root)
    (tmp_path / str(PID) / "stat").write_text(text)
    assert not starvation.is_starved()


def test_is_starved_a_process_that_runs_has_a_state_and_a_time() -> None:
    # The real /proc: this very process is running, and has not used up its chance since.
    assert Starvation(0, "/proc/self/..").is_starved() is False  # no such pid
    assert Starvation(os.getpid()).is_starved()
