"""`kvmbox run --watch`, with boots and files that a script makes up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kvmbox.cli.run.rerun_on_change import INTERRUPTED, LOOK_MS, State, states_of, watch

ABSENT: State = (None,)


def version(number: int) -> State:
    return ((number, 0, 0),)


class Scene:
    """Files whose states come one after the other, and boots that end after so many looks."""

    def __init__(self, states: Sequence[State], boots: Sequence[tuple[int, int]]) -> None:
        """`boots` are pairs: how many looks a boot lasts, and its status."""
        self.states = list(states)
        self.boots = list(boots)
        self.log: list[str] = []
        self.left, self.status = 0, 0

    def state_of(self, _paths: Sequence[str]) -> State:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def boot(self) -> Scene:
        self.left, self.status = self.boots.pop(0)
        self.log.append("boot")
        return self

    def wait(self, milliseconds: int) -> int | None:
        assert milliseconds == LOOK_MS
        self.left -= 1
        return self.status if self.left < 0 else None

    def end(self) -> None:
        self.log.append("end")

    def run(self) -> int:
        return watch(["k"], self.boot, self.log.append, state_of=self.state_of, pause=lambda _ms: None)


class Interrupted(Scene):
    """A signal comes while a boot runs."""

    def wait(self, milliseconds: int) -> int | None:
        raise KeyboardInterrupt


CHANGED = "k changed; booting again"


def ended(status: int) -> str:
    return f"status {status}; waiting for a change of k"


def test_change_after_the_end_boots_again() -> None:
    scene = Scene([version(1), version(1), version(2), version(2)], [(0, 7), (0, INTERRUPTED)])
    assert scene.run() == INTERRUPTED
    assert scene.log == ["boot", ended(7), CHANGED, "boot", "end"]


def test_change_while_it_runs_ends_the_boot() -> None:
    scene = Scene([version(1), version(2), version(2)], [(9, 0), (0, INTERRUPTED)])
    assert scene.run() == INTERRUPTED
    assert scene.log == ["boot", "end", CHANGED, "boot", "end"]


def test_file_that_is_still_being_written_is_waited_for() -> None:
    states = [version(1), version(2), ABSENT, ABSENT, version(3), version(4), version(4), version(4)]
    scene = Scene(states, [(0, 0), (0, INTERRUPTED)])
    scene.run()
    assert scene.log.count("boot") == 2
    assert scene.states == [version(4)]


def test_change_back_is_no_change() -> None:
    scene = Scene([version(1), version(2), version(1), version(1)], [(3, INTERRUPTED)])
    scene.run()
    assert scene.log == ["boot", "end"]


def test_error_of_a_boot_ends_what_runs() -> None:
    scene = Interrupted([version(1)], [(9, 0)])
    with pytest.raises(KeyboardInterrupt):
        scene.run()
    assert scene.log == ["boot", "end"]


def test_look_sees_each_way_in_which_a_build_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    seen = {states_of([str(path)])}
    assert seen == {ABSENT}
    path.write_bytes(b"1")
    seen.add(states_of([str(path)]))
    path.write_bytes(b"12")
    seen.add(states_of([str(path)]))
    other = tmp_path / "new"
    other.write_bytes(b"12")
    other.rename(path)
    seen.add(states_of([str(path)]))
    assert len(seen) == 4
