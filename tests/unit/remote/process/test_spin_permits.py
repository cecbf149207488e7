"""Who may spin: the one that is asked most, for as long as nothing else has its CPU, and as it pays."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Collection

import pytest

from kvmbox.remote.process.spin_permits import (
    AWAKE,
    BUSY,
    DENSE_NS,
    LEAST_LOSS_NS,
    LONG_STINT_NS,
    LONGEST_WAIT_NS,
    SHARE,
    SLEEPY,
    TRIES,
    TRY_AGAIN_NS,
    SpinPermits,
)
from tests.support.racing import race

HOME, SPARES = 2, (5, 7)
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

    def __init__(self, home: int | None = HOME, spares: Collection[int] = SPARES) -> None:
        self.log: list[tuple[object, ...]] = []
        self.now = 10**9
        self.refuses: type[OSError] | None = None
        self.uart, self.rtc = (FakeSpinner(name, self.log) for name in PIDS)
        self.grants = SpinPermits(
            home, spares, pid_of=PIDS.__getitem__, clock=lambda: self.now, set_affinity=self._set_affinity
        )

    def _set_affinity(self, pid: int, cpus: Collection[int]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.log.append((pid, *sorted(cpus)))

    def wanted_by(self, channel: FakeSpinner, *, apart: int = 0) -> list[tuple[object, ...]]:
        """What happens when it is asked 64 times, `apart` ns after 64 times before.

        Before those it was not asked for a while.
        """
        self.now += QUIET_NS
        self.grants.wanted_by(channel)
        self.now += apart
        self.log.clear()
        self.grants.wanted_by(channel)
        return list(self.log)

    def crowded(self, channel: FakeSpinner) -> list[tuple[object, ...]]:
        self.log.clear()
        self.grants.crowded(channel)
        return list(self.log)

    def late(self, channel: FakeSpinner, lost: int, times: int = 1) -> list[tuple[object, ...]]:
        self.log.clear()
        for _ in range(times):
            self.grants.late(channel, lost)
        return list(self.log)

    def asleep(self, channel: FakeSpinner, times: int) -> list[tuple[object, ...]]:
        self.log.clear()
        for _ in range(times):
            self.grants.asleep(channel)
        return list(self.log)


SPINS = [(100, *SPARES), ("uart", "spins")]
GOES_HOME = [(100, HOME), ("uart", "sleeps")]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_first_that_wants_to_spin_moves_to_the_spare_cpu_and_spins(rig: Rig) -> None:
    assert rig.wanted_by(rig.uart) == SPINS
    assert (rig.grants.granted, rig.grants.revoked) == (1, 0)


def test_who_is_asked_seldom_does_not_get_the_right(rig: Rig) -> None:
    assert rig.wanted_by(rig.uart, apart=DENSE_NS + 1) == []
    assert rig.wanted_by(rig.uart, apart=DENSE_NS) == SPINS


def test_without_pinning_it_spins_where_it_is() -> None:
    rig = Rig(None)
    assert rig.wanted_by(rig.uart) == [("uart", "spins")]
    assert rig.crowded(rig.uart) == [("uart", "sleeps")]


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
    assert rig.wanted_by(rig.rtc) == [(100, HOME), ("uart", "sleeps"), (200, *SPARES), ("rtc", "spins")]
    assert rig.grants.granted == 2


def test_spinner_whose_cpu_is_used_is_fetched_home_at_once(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    assert rig.crowded(rig.uart) == GOES_HOME
    assert (rig.grants.granted, rig.grants.revoked) == (1, 1)
    assert rig.crowded(rig.uart) == []


def test_spinner_that_was_interrupted_spins_again_after_a_few_requests(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.now += 10 * DENSE_NS  # in which it was not asked for the right
    rig.crowded(rig.uart)
    rig.now += DENSE_NS
    rig.log.clear()
    rig.grants.wanted_by(rig.uart)
    assert rig.log == SPINS


def stint(rig: Rig, ns: int) -> None:
    """The right, which ends after so long because somebody else has the CPU."""
    assert rig.wanted_by(rig.uart) == SPINS
    rig.now += ns
    assert rig.crowded(rig.uart) == GOES_HOME


def use_up(rig: Rig) -> None:
    for _ in range(TRIES):
        stint(rig, LONG_STINT_NS - 1)


def test_short_stints_use_up_the_tries_of_all_processes(rig: Rig) -> None:
    use_up(rig)
    assert rig.wanted_by(rig.uart) == []
    assert rig.wanted_by(rig.rtc) == []


def test_one_try_at_a_time_comes_back(rig: Rig) -> None:
    use_up(rig)
    rig.now += LONGEST_WAIT_NS - QUIET_NS - 1
    assert rig.wanted_by(rig.uart) == []
    rig.now += 1
    rig.grants.wanted_by(rig.uart)
    assert rig.log == SPINS
    rig.crowded(rig.uart)
    assert rig.wanted_by(rig.uart) == []
    rig.now += 2 * LONGEST_WAIT_NS
    stint(rig, 0)
    rig.log.clear()
    stint(rig, 0)
    assert rig.wanted_by(rig.uart) == []


def test_each_short_stint_doubles_the_wait_for_the_next_try_and_a_long_one_ends_that(rig: Rig) -> None:
    for _ in range(2):
        use_up(rig)
        wait = TRY_AGAIN_NS << TRIES
        assert wait >= LONGEST_WAIT_NS
        rig.now += LONGEST_WAIT_NS
        stint(rig, LONG_STINT_NS)
        stint(rig, 0)
        # Two tries are left. The third one comes back sooner than after many in vain.
        rig.now += 2 * TRY_AGAIN_NS
        stint(rig, 0)
        stint(rig, 0)
        stint(rig, 0)
        assert rig.wanted_by(rig.uart) == []
        rig.now += LONGEST_WAIT_NS
        stint(rig, LONG_STINT_NS)


def test_no_more_tries_come_back_than_there_were(rig: Rig) -> None:
    use_up(rig)
    rig.now += 100 * LONGEST_WAIT_NS
    use_up(rig)
    assert rig.wanted_by(rig.uart) == []


def test_try_that_came_back_does_not_come_back_twice(rig: Rig) -> None:
    use_up(rig)
    rig.now += LONGEST_WAIT_NS
    assert rig.wanted_by(rig.uart) == SPINS
    assert rig.wanted_by(rig.rtc)[-1] == ("rtc", "spins")
    rig.crowded(rig.rtc)
    assert rig.wanted_by(rig.rtc) == []


def test_tries_that_are_not_used_up_do_not_pile_up(rig: Rig) -> None:
    rig.now += 100 * LONGEST_WAIT_NS
    use_up(rig)
    assert rig.wanted_by(rig.uart) == []


def test_long_stint_brings_all_tries_back(rig: Rig) -> None:
    for _ in range(5):
        for _ in range(TRIES - 1):
            stint(rig, 0)
        stint(rig, LONG_STINT_NS)
    use_up(rig)
    assert rig.wanted_by(rig.uart) == []


def test_spinner_that_makes_room_for_another_one_has_used_no_try(rig: Rig) -> None:
    for _ in range(3 * TRIES):
        rig.wanted_by(rig.uart)
        assert rig.wanted_by(rig.rtc)[-1] == ("rtc", "spins")


def test_spinner_that_is_found_asleep_goes_home(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.uart.answered += AWAKE * SLEEPY - 1
    assert rig.asleep(rig.uart, SLEEPY - 1) == []
    assert rig.asleep(rig.uart, 1) == GOES_HOME
    assert rig.grants.revoked == 1
    assert rig.wanted_by(rig.uart) == SPINS


def test_spinner_that_is_mostly_awake_may_sleep_at_times(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    for _ in range(50):
        rig.uart.answered += AWAKE
        assert rig.asleep(rig.uart, 1) == []
    # What was good does not make up for what is bad for long.
    rig.uart.answered += 10**6
    rig.asleep(rig.uart, SLEEPY)
    assert rig.asleep(rig.uart, SLEEPY) == GOES_HOME


def test_others_may_take_a_small_share_in_short_turns(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    for _ in range(100):
        rig.now += SHARE * LEAST_LOSS_NS
        assert rig.late(rig.uart, LEAST_LOSS_NS) == []
    assert rig.grants.revoked == 0


def test_others_that_take_more_in_short_turns_end_the_right(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.now += SHARE * LEAST_LOSS_NS - 1
    assert rig.late(rig.uart, LEAST_LOSS_NS // 4, 3) == []
    assert rig.late(rig.uart, LEAST_LOSS_NS // 4) == GOES_HOME
    assert rig.grants.revoked == 1


def test_small_loss_is_an_accident(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    assert rig.late(rig.uart, LEAST_LOSS_NS - 1) == []
    assert rig.late(rig.uart, 1) == GOES_HOME


def test_good_time_long_ago_does_not_make_up_for_what_is_lost_now(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.now += 10**12
    assert rig.late(rig.uart, LEAST_LOSS_NS) == []
    assert rig.late(rig.uart, LEAST_LOSS_NS) == GOES_HOME


def test_late_reply_of_who_has_not_the_right_moves_nobody(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    assert rig.crowded(rig.rtc) == []
    assert rig.late(rig.rtc, 10 * LEAST_LOSS_NS) == []
    assert rig.asleep(rig.rtc, 2 * SLEEPY) == []


def test_first_requests_say_nothing_about_how_often_it_is_asked(rig: Rig) -> None:
    rig.grants.wanted_by(rig.uart)
    assert rig.log == []


def test_replacement_starts_without_the_right(rig: Rig) -> None:
    rig.wanted_by(rig.uart)
    rig.grants.replaced(rig.rtc)
    assert rig.wanted_by(rig.rtc) != []
    rig.grants.replaced(rig.rtc)
    # Nobody has it now, so nobody is sent home.
    assert rig.wanted_by(rig.uart) == SPINS


def test_process_that_is_gone_is_left_to_its_next_request(rig: Rig) -> None:
    rig.refuses = ProcessLookupError
    assert rig.wanted_by(rig.uart) == []


def test_process_that_may_not_be_moved_never_spins(rig: Rig) -> None:
    rig.refuses = PermissionError
    assert rig.wanted_by(rig.uart) == []
    rig.refuses = None
    rig.now += 10**12
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

    def set_affinity(_pid: int, _cpus: Collection[int]) -> None:
        assert moving.acquire(blocking=False), "two processes are moved at once"
        others_run()
        moving.release()

    grants = SpinPermits(
        HOME, SPARES, pid_of=lambda _name: 1, clock=ticks.__next__, set_affinity=set_affinity
    )

    def asks(name: str) -> Callable[[], None]:
        spinner = Racer(name, spinning, granted)

        def ask() -> None:
            for turn in range(2000):
                grants.wanted_by(spinner)
                grants.crowded(spinner)
                if turn % 100 == 99:
                    spinning.discard(spinner)  # its process is dead, and spins no more
                    grants.replaced(spinner)

        return ask

    race(*map(asks, ("uart", "pit", "rtc", "i8042")))
    assert grants.granted == len(granted) > 0
    assert spinning == {grants._holder} - {None}
