"""Whether spinning pays: not asked while it is undisturbed, and measured against sleeping where it is not."""

from __future__ import annotations

import pytest

from kvmbox.channel.spin_trials import LONG_STINT_NS, PATIENCE, PERIOD, SLOT_BITS, SpinTrials

SLOT_NS = 1 << SLOT_BITS
PERIOD_NS = PERIOD * SLOT_NS
SHORT_NS = LONG_STINT_NS - 1
SOON = PERIOD_NS // 2
"""A time in no trial."""


class Machine:
    """A machine whose requests cost what the test says, while it spins and while it does not."""

    def __init__(self, *, spinning: int, sleeping: int) -> None:
        self.trials = SpinTrials()
        self.now = SOON
        self.answered = 0
        self.spinning = spinning
        self.sleeping = sleeping

    def ask(self, requests: int = 16) -> None:
        self.now += requests * (self.spinning if self.trials.allow(self.now) else self.sleeping)
        self.answered += requests
        self.trials.step(self.now, self.answered)

    def run_until(self, when: int) -> set[bool]:
        """Ask until `when`; whether it could spin at any, and whether at all, of these moments."""
        seen = set()
        while self.now < when:
            self.ask()
            seen.add(self.trials.allow(self.now))
        return seen

    def interrupt(self, times: int = PATIENCE, stint: int = SHORT_NS) -> None:
        for _ in range(times):
            self.trials.interrupted(self.now, self.now - stint)


def test_spins_as_long_as_nothing_interrupts_it() -> None:
    machine = Machine(spinning=9_000, sleeping=15_000)
    assert machine.run_until(5 * PERIOD_NS) == {True}  # and no slot goes to a comparison


def test_short_stints_end_it_until_it_is_compared() -> None:
    machine = Machine(spinning=9_000, sleeping=15_000)
    machine.interrupt(PATIENCE - 1)
    assert machine.trials.allow(machine.now)
    machine.interrupt(1)
    assert machine.run_until(PERIOD_NS - 1_000_000) == {False}


def test_long_stint_makes_up_for_short_ones() -> None:
    machine = Machine(spinning=9_000, sleeping=15_000)
    for _ in range(5):
        machine.interrupt(PATIENCE - 1)
        machine.interrupt(1, LONG_STINT_NS)
    assert machine.trials.allow(machine.now)


def disturbed(*, spinning: int, sleeping: int) -> Machine:
    machine = Machine(spinning=spinning, sleeping=sleeping)
    machine.interrupt()
    return machine


def test_first_slot_of_a_period_spins_and_the_second_one_sleeps() -> None:
    machine = disturbed(spinning=20_000, sleeping=20_000)
    machine.run_until(PERIOD_NS)
    assert machine.run_until(PERIOD_NS + SLOT_NS - 400_000) == {True}
    machine.run_until(PERIOD_NS + SLOT_NS)
    assert machine.run_until(PERIOD_NS + 2 * SLOT_NS - 400_000) == {False}


@pytest.mark.parametrize(
    ("spinning", "sleeping", "pays"),
    [(9_000, 15_000, True), (20_000, 33_000, True), (13_500, 15_000, False), (22_000, 15_000, False)],
)
def test_spins_where_a_request_is_cheaper_by_a_fifth(spinning: int, sleeping: int, pays: bool) -> None:
    machine = disturbed(spinning=spinning, sleeping=sleeping)
    machine.run_until(PERIOD_NS + 2 * SLOT_NS + 1)
    # Nothing that interrupts it counts until the next comparison.
    machine.interrupt(2 * PATIENCE)
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {pays}


def test_compares_again_in_each_period() -> None:
    machine = disturbed(spinning=22_000, sleeping=15_000)
    machine.run_until(PERIOD_NS + 2 * SLOT_NS)
    machine.spinning = 9_000
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {False}
    machine.run_until(2 * PERIOD_NS + 2 * SLOT_NS + 400_000)
    assert machine.run_until(3 * PERIOD_NS - 1_000_000) == {True}
    machine.spinning = 22_000
    machine.run_until(3 * PERIOD_NS + 2 * SLOT_NS + 400_000)
    assert machine.run_until(4 * PERIOD_NS - 1_000_000) == {False}


def test_machines_that_slow_each_other_down_find_out_that_neither_should_spin() -> None:
    """One that spins alone gains; two that spin lose; and both compare at the same time."""
    one, other = (disturbed(spinning=0, sleeping=15_000) for _ in range(2))
    other.now += 200_000  # they need not be in step

    def costs(mine: Machine, theirs: Machine) -> int:
        return 22_000 if theirs.trials.allow(mine.now) else 10_000

    while min(one.now, other.now) < 3 * PERIOD_NS - 1_000_000:
        mine, theirs = (one, other) if one.now <= other.now else (other, one)
        mine.spinning = costs(mine, theirs)
        mine.ask()
        if mine.now % PERIOD_NS > 2 * SLOT_NS + 500_000:
            assert not mine.trials.allow(mine.now)


def test_comparison_without_requests_shows_nothing() -> None:
    machine = disturbed(spinning=9_000, sleeping=15_000)
    machine.run_until(PERIOD_NS + SLOT_NS // 2)
    machine.now += SLOT_NS
    machine.trials.step(machine.now, machine.answered)
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {False}


def test_guest_that_rests_while_it_is_compared_shows_nothing() -> None:
    machine = disturbed(spinning=20_000, sleeping=20_000)
    machine.run_until(PERIOD_NS + SLOT_NS + SLOT_NS // 2)
    machine.now += 2 * SLOT_NS  # it asks for nothing; sleeping would look dear
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {False}


def test_count_that_runs_backwards_shows_nothing() -> None:
    machine = disturbed(spinning=9_000, sleeping=15_000)
    machine.run_until(PERIOD_NS + SLOT_NS // 2)
    machine.answered -= 10**6  # a device process may claim anything
    machine.run_until(PERIOD_NS + SLOT_NS)
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {False}


def test_abandoned_comparison_shows_nothing() -> None:
    machine = disturbed(spinning=9_000, sleeping=15_000)
    machine.run_until(PERIOD_NS + SLOT_NS + SLOT_NS // 2)
    machine.trials.abandon()
    assert machine.run_until(2 * PERIOD_NS - 1_000_000) == {False}
