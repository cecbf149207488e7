"""Who may spin: the one that is asked most, for as long as that pays, and nobody for a while after that."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable

import pytest

from kvmbox.channel.spin import (
    BUSY,
    DENSE_NS,
    DOORBELL_NS,
    FIRST_PAUSE_NS,
    LEAST_LOSS_NS,
    LONGEST_PAUSE_NS,
    SLEEPY,
    WINDOW,
    SpinGrants,
)
from tests.support.racing import race

HOME, SPARE = 2, 5
QUIET_NS = DENSE_NS + 1
"""Who was not asked for so long is not asked often."""
PIDS = {"uart": 100, "rtc": 200}


class FakeSpinner:
    """A channel whose requests are counted by the test."""

    def __init__(self, device_type: str, log: list[tuple[object, ...]]) -> None:
        self.device_type = device_type
        self.answered = 0
        self._log = log

    def allow_spinning(self, allowed: bool) -> None:
        self._log.append((self.device_type, "spins" if allowed else "sleeps"))


class Rig:
    """Grants on a host whose clock and CPUs the test has."""

    def __init__(self, home: int | None = HOME, spare: int | None = SPARE) -> None:
        self.log: list[tuple[object, ...]] = []
        self.now = 10**9
        self.refuses: type[OSError] | None = None
        self.uart, self.rtc = (FakeSpinner(name, self.log) for name in PIDS)
        self.grants = SpinGrants(
            home, spare, pid_of=PIDS.__getitem__, clock=lambda: self.now, set_affinity=self._set_affinity
        )

    def _set_affinity(self, pid: int, cpus: set[int]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.log.append((pid, *cpus))

    def wanted_by(self, channel: FakeSpinner, *, apart: int = 0) -> list[tuple[object, ...]]:
        """What happens when it is asked sixteen times, `apart` ns after sixteen times before.

        Before those it was not asked for a while.
        """
        self.now += QUIET_NS
        self.grants.wanted_by(channel)
        self.now += apart
        self.log.clear()
        self.grants.wanted_by(channel)
        return list(self.log)

    def late(self, channel: FakeSpinner, lost: int, times: int = 1) -> list[tuple[object, ...]]:
        self.log.clear()
        for _ in range(times):
            self.grants.late(channel, lost)
        return list(self.log)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_first_that_wants_to_spin_moves_to_the_spare_cpu_and_spins(rig: Rig) -> None:
    assert rig.wanted_by(rig.uart) == [(100, SPARE), ("uart", "spins")]
    assert (rig.grants.granted, rig.grants.revoked) == (1, 0)


def test_who_is_asked_seldom_does_not_get_the_right(rig: Rig) -> None:
    assert rig.wanted_by(rig.uart, apart=DENSE_NS + 1) == []
    assert rig.wanted_by(rig.uart, apart=DENSE_NS) == [(100, SPARE), ("uart", "spins")]


def test_without_pinning_it_spins_where_it_is() -> None:
    rig = Rig(None, None)
    assert rig.wanted_by(rig.uart) == [("uart", "spins")]
    assert rig.late(rig.uart, LEAST_LOSS_NS + 1) == [("uart", "sleeps")]


def test_holder_that_is_busy_keeps_the_right(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.grants.wanted_by(rig.rtc)
    for _ in range(2):
        rig.uart.answered += BUSY
        rig.log.clear()
        rig.grants.wanted_by(rig.rtc)
        assert rig.log == []
    assert rig.grants.granted == 1


def test_holder_that_is_hardly_asked_any_more_loses_the_right(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.uart.answered += BUSY - 1
    # At most one spins: the one sleeps before the other spins.
    assert rig.wanted_by(rig.rtc) == [(100, HOME), ("uart", "sleeps"), (200, SPARE), ("rtc", "spins")]
    assert rig.grants.granted == 2


def test_right_that_costs_more_than_a_doorbell_is_taken_back_for_a_while(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.uart.answered += 1000
    assert rig.late(rig.uart, 1000 * DOORBELL_NS) == []
    assert rig.late(rig.uart, 1) == [(100, HOME), ("uart", "sleeps")]
    assert rig.grants.revoked == 1
    assert rig.wanted_by(rig.uart) == []
    rig.now += FIRST_PAUSE_NS - 3 * QUIET_NS
    assert rig.wanted_by(rig.rtc) == []
    rig.now += QUIET_NS
    assert rig.wanted_by(rig.rtc) == [(200, SPARE), ("rtc", "spins")]


def test_small_loss_is_an_accident(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    assert rig.late(rig.uart, LEAST_LOSS_NS) == []
    assert rig.late(rig.uart, 1) != []


def test_each_pause_is_twice_the_former_up_to_a_limit(rig: Rig) -> None:
    pause = FIRST_PAUSE_NS
    for _ in range(12):
        assert rig.wanted_by(rig.uart) != []
        rig.late(rig.uart, LEAST_LOSS_NS + 1)
        rig.now += pause - 1 - QUIET_NS
        assert rig.wanted_by(rig.uart) == []
        rig.now += 1
        pause = min(2 * pause, LONGEST_PAUSE_NS)
    assert pause == LONGEST_PAUSE_NS
    assert rig.grants.revoked == 12


def test_losses_are_forgotten_after_a_window(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    for _ in range(5):
        assert rig.late(rig.uart, LEAST_LOSS_NS) == []
        rig.uart.answered += WINDOW + 1
        assert rig.late(rig.uart, LEAST_LOSS_NS) == []  # this one opens the next window
    assert rig.grants.revoked == 0


def test_good_behaviour_shortens_the_pause_again(rig: Rig) -> None:
    for _ in range(4):
        rig.wanted_by(rig.uart)
        rig.late(rig.uart, LEAST_LOSS_NS + 1)
        rig.now += LONGEST_PAUSE_NS
    rig.wanted_by(rig.uart)
    rig.uart.answered += WINDOW + 1
    rig.late(rig.uart, 1)
    rig.late(rig.uart, LEAST_LOSS_NS + 1)
    rig.now += FIRST_PAUSE_NS
    assert rig.wanted_by(rig.uart) != []


def test_spinner_that_is_found_asleep_goes_home_without_a_pause(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.uart.answered += SLEEPY
    assert rig.late(rig.uart, 0, SLEEPY - 1) == []
    assert rig.late(rig.uart, 0) == [(100, HOME), ("uart", "sleeps")]
    assert rig.grants.revoked == 0
    assert rig.wanted_by(rig.uart) == [(100, SPARE), ("uart", "spins")]


def test_spinner_that_is_mostly_awake_may_sleep_at_times(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    for _ in range(50):
        rig.uart.answered += 5
        assert rig.late(rig.uart, 0) == []


def test_late_reply_of_who_has_not_the_right_moves_nobody(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    assert rig.late(rig.rtc, 10 * LEAST_LOSS_NS) == []
    assert rig.late(rig.rtc, 0, 2 * SLEEPY) == []


def test_first_sixteen_requests_say_nothing_about_how_often_it_is_asked(rig: Rig) -> None:
    rig.grants.wanted_by(rig.uart)
    assert rig.log == []


def test_replacement_starts_without_the_right(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.grants.replaced(rig.rtc)
    assert rig.wanted_by(rig.rtc) != []
    rig.grants.replaced(rig.rtc)
    # Nobody has it now, so nobody is sent home.
    assert rig.wanted_by(rig.uart) == [(100, SPARE), ("uart", "spins")]


def test_process_that_is_gone_is_left_to_its_next_request(rig: Rig) -> None:
    rig.refuses = ProcessLookupError
    assert rig.wanted_by(rig.uart) == []


def test_process_that_may_not_be_moved_never_spins(rig: Rig) -> None:
    rig.refuses = PermissionError
    assert rig.wanted_by(rig.uart) == []
    rig.refuses = None
    rig.now += 10 * LONGEST_PAUSE_NS
    assert rig.wanted_by(rig.uart) == []


def others_run() -> None:
    """Gives the interpreter away for a moment, as every call of the kernel does."""
    os.stat("/")


class Racer:
    """A spinner that a thread of its own asks for. `spinning` are those that spin, `granted` who ever did."""

    def __init__(self, device_type: str, spinning: set[Racer], granted: list[str]) -> None:
        self.device_type = device_type
        self._spinning = spinning
        self._granted = granted

    @property
    def answered(self) -> int:
        others_run()
        return 0

    def allow_spinning(self, allowed: bool) -> None:
        if allowed:
            assert not self._spinning, "two spin"
            self._spinning.add(self)
            self._granted.append(self.device_type)
        else:
            self._spinning.discard(self)


def test_threads_that_race_for_the_right_never_have_it_at_once() -> None:
    spinning: set[Racer] = set()
    granted: list[str] = []
    moving = threading.Lock()
    ticks = itertools.count(10**9)

    def set_affinity(_pid: int, _cpus: set[int]) -> None:
        assert moving.acquire(blocking=False), "two processes are moved at once"
        others_run()
        moving.release()

    grants = SpinGrants(HOME, SPARE, pid_of=lambda _name: 1, clock=ticks.__next__, set_affinity=set_affinity)

    def asks(name: str) -> Callable[[], None]:
        spinner = Racer(name, spinning, granted)

        def ask() -> None:
            for turn in range(2000):
                grants.wanted_by(spinner)
                for _ in range(SLEEPY):
                    grants.late(spinner, 0)
                if turn % 100 == 99:
                    spinning.discard(spinner)  # its process is dead, and spins no more
                    grants.replaced(spinner)

        return ask

    race(*map(asks, ("uart", "pit", "rtc", "i8042")))
    assert grants.granted == len(granted) > 0
    assert spinning == {grants._holder} - {None}
