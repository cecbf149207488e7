"""When the main thread looks around: often while something happens, rarely while nothing does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvmbox.remote.channel.deadlines import REPLY_SLICES, WAIT_SLICE_MS
from kvmbox.run.loop.check_interval import (
    DEEP_MS,
    DEEP_SLICE_MS,
    LOOK_MS,
    MAX_LOOK_MS,
    MAX_PROBE_MS,
    PROBE_MS,
    QUIET_SLICE_MS,
    CheckInterval,
)


class Boot:
    """A pace, and what the main loop sees: slice after slice, with the time counted along."""

    def __init__(self) -> None:
        self.pace = CheckInterval()
        self.exits = 0
        self.announced = True
        self.halted = True
        self.now = 0
        self.slices: list[int] = []
        self.looks: list[int] = []
        self.probes: list[int] = []

    def slice(self, *, exits: int = 0, busy: bool = False) -> None:
        length = self.pace.slice_ms(announced=self.announced)
        self.now += length
        self.exits += exits
        chores = self.pace.passed(length, exits=self.exits, busy=busy, halted=self.halted)
        self.slices.append(length)
        if chores.examine:
            self.looks.append(self.now)
        if chores.probe:
            self.probes.append(self.now)

    def quiet(self, milliseconds: int) -> None:
        end = self.now + milliseconds
        while self.now < end:
            self.slice()

    def gaps(self, times: list[int]) -> list[int]:
        return [later - earlier for earlier, later in pairwise(times)]


@pytest.fixture
def boot() -> Boot:
    boot = Boot()
    boot.slice(exits=1)
    return boot


def test_while_the_guest_exits_slices_are_short_and_the_vcpu_is_left_alone(boot: Boot) -> None:
    for _ in range(100):
        boot.slice(exits=1)
    assert set(boot.slices) == {WAIT_SLICE_MS}
    assert boot.looks == []
    assert set(boot.gaps(boot.probes)) == {PROBE_MS}


def test_quiet_vcpu_is_looked_at_after_100_ms_then_ever_later(boot: Boot) -> None:
    began = boot.now
    boot.quiet(20_000)
    assert boot.looks[0] - began == LOOK_MS == 100
    gaps = boot.gaps(boot.looks)
    assert gaps[:3] == [200, 400, 800]
    assert 1600 <= gaps[3] < 1600 + DEEP_SLICE_MS
    assert all(MAX_LOOK_MS <= gap < MAX_LOOK_MS + DEEP_SLICE_MS for gap in gaps[4:])
    assert len(boot.looks) < 11


def test_quiet_device_processes_are_probed_ever_later(boot: Boot) -> None:
    boot.quiet(30_000)
    gaps = boot.gaps(boot.probes)
    assert gaps == sorted(gaps)
    assert gaps[-1] == MAX_PROBE_MS
    assert len(boot.probes) < 16


def test_slices_get_long_after_the_first_look_and_only_if_the_next_exit_is_announced(boot: Boot) -> None:
    boot.announced = False
    boot.quiet(1000)
    assert set(boot.slices) == {WAIT_SLICE_MS}
    boot.announced = True
    boot.slice()
    assert boot.slices[-1] == QUIET_SLICE_MS


def test_first_look_comes_in_short_slices_whatever_was_promised(boot: Boot) -> None:
    boot.slice()
    assert (boot.slices[-1], boot.looks) == (WAIT_SLICE_MS, [])
    boot.slice()
    assert (boot.slices[-1], len(boot.looks)) == (WAIT_SLICE_MS, 1)
    boot.slice()
    assert boot.slices[-1] == QUIET_SLICE_MS


def test_long_slice_ends_at_once_when_the_exit_is_announced(boot: Boot) -> None:
    boot.quiet(5000)
    assert boot.pace.slice_ms(announced=True) == DEEP_SLICE_MS
    assert boot.pace.slice_ms(announced=False) == WAIT_SLICE_MS


def test_slices_get_longer_once_more_while_a_halted_machine_stays_quiet(boot: Boot) -> None:
    boot.quiet(DEEP_MS)
    assert set(boot.slices[3:]) == {QUIET_SLICE_MS}
    boot.quiet(DEEP_MS)
    assert boot.slices[-1] == DEEP_SLICE_MS
    assert boot.pace.slice_ms(announced=True, owes=True) == QUIET_SLICE_MS
    boot.halted = False
    boot.quiet(DEEP_MS)
    assert boot.slices[-1] == QUIET_SLICE_MS


def test_slices_are_as_long_as_looks_while_only_kvmbox_can_wake_the_guest(boot: Boot) -> None:
    boot.quiet(2 * DEEP_MS)
    assert boot.pace.slice_ms(announced=True, owes=True, sound=True) == MAX_LOOK_MS
    assert boot.pace.slice_ms(announced=False, sound=True) == WAIT_SLICE_MS
    boot.slice(exits=1)
    assert boot.pace.slice_ms(announced=True, sound=True) == WAIT_SLICE_MS
    boot.quiet(1000)
    assert boot.pace.slice_ms(announced=True, sound=True) == QUIET_SLICE_MS


def test_open_request_is_counted_in_short_slices(boot: Boot) -> None:
    # Ten of them are the deadline of a request: the promise was kept, so the first is short as well.
    boot.quiet(5000)
    boot.announced = False
    boot.slices.clear()
    for _ in range(REPLY_SLICES):
        boot.slice(busy=True)
    assert boot.slices == [WAIT_SLICE_MS] * REPLY_SLICES


@pytest.mark.parametrize(("exits", "busy"), [(1, False), (0, True)])
def test_whatever_happens_makes_everything_frequent_again(boot: Boot, exits: int, busy: bool) -> None:
    boot.quiet(30_000)
    boot.slice(exits=exits, busy=busy)
    happened = boot.now
    boot.looks.clear()
    boot.probes.clear()
    boot.quiet(1000)
    assert boot.looks[0] - happened <= LOOK_MS
    assert boot.probes[0] - happened < PROBE_MS + QUIET_SLICE_MS
    assert boot.slices[-1] == QUIET_SLICE_MS


def test_busy_machine_does_not_hide_a_vcpu_that_is_halted_for_ever(boot: Boot) -> None:
    # Its output has no room, and nobody will ever read it.
    for _ in range(20):
        boot.slice(busy=True)
    assert set(boot.gaps(boot.looks)) == {LOOK_MS}


def test_vcpu_that_computes_is_looked_at_as_often_as_ever(boot: Boot) -> None:
    # It may halt at any moment, without an exit.
    boot.halted = False
    boot.quiet(10_000)
    assert max(boot.gaps(boot.looks)) <= QUIET_SLICE_MS


def test_deadlines_are_put_off_only_while_a_halted_vcpu_is_quiet(boot: Boot) -> None:
    assert not boot.pace.may_put_off(announced=True, halted=True)
    boot.quiet(1000)
    assert boot.pace.may_put_off(announced=True, halted=True)
    assert not boot.pace.may_put_off(announced=False, halted=True)
    assert not boot.pace.may_put_off(announced=True, halted=False)
