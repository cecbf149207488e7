"""Deadlines: the earliest of many arms one timer; nobody is told the time too often."""

from __future__ import annotations

import select
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.time.deadline_timer import LENIENCE, MIN_INTERVAL, DeadlineTimer, Timerfd
from kvmbox.host.time.guest_clock import GuestClock


class FakeTimer(Timerfd):
    """Notes how it was armed: ns from now, or None for never. `None` is also how a timer starts."""

    def __init__(self) -> None:
        self.armed: int | None = None
        self.settings = 0

    def arm(self, nanoseconds: int) -> None:
        self.armed = nanoseconds
        self.settings += 1

    def disarm(self) -> None:
        self.armed = None
        self.settings += 1


class Rig:
    """A deadline timer on a clock that the test moves."""

    def __init__(self) -> None:
        self.host_now = 0
        self.clock = GuestClock(lambda: self.host_now)
        self.clock.release()
        self.timer = FakeTimer()
        self.deadlines = DeadlineTimer(self.clock, self.timer)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_set_arms_the_timer_for_the_earliest(rig: Rig) -> None:
    rig.host_now = 1_000
    rig.deadlines.set("pit", 500_000)
    assert rig.timer.armed == 499_000
    rig.deadlines.set("rtc", 300_000)
    assert rig.timer.armed == 299_000
    rig.deadlines.set("uart", 400_000)
    assert rig.timer.armed == 299_000


def test_lend_lets_guest_time_come_to_the_first_deadline_and_no_further(rig: Rig) -> None:
    rig.deadlines.set("pit", 10_000_000)
    assert not rig.deadlines.lend(200_000_000)
    rig.host_now = 5_000_000_000  # the main thread did not run
    assert rig.clock.now() == 10_000_000 + LENIENCE
    assert rig.deadlines.lend(0)
    rig.deadlines.rearm()
    assert rig.deadlines.due() == ["pit"]
    assert rig.clock.now() == 10_000_000 + LENIENCE
    assert not rig.deadlines.lend(200_000_000)
    rig.host_now = 50_000_000_000
    assert rig.clock.now() == 10_000_000 + 200_000_000 + 2 * LENIENCE


def test_lend_while_guest_time_stands_still_uses_nothing_up(rig: Rig) -> None:
    rig.deadlines.set("pit", 10_000_000)
    rig.deadlines.lend(0)
    rig.clock.pause()
    rig.host_now = 5_000_000_000
    assert not rig.deadlines.lend(0)
    rig.clock.resume()
    assert rig.clock.now() == 0
    assert rig.clock.stalls == 0


def test_set_none_takes_a_deadline_back(rig: Rig) -> None:
    rig.deadlines.set("pit", 500_000)
    rig.deadlines.set("rtc", 300_000)
    rig.deadlines.set("rtc", None)
    assert rig.timer.armed == 500_000
    rig.deadlines.set("pit", None)
    assert rig.timer.armed is None
    rig.deadlines.set("nobody", None)
    assert rig.timer.armed is None


def test_set_replaces_the_deadline_of_the_same_name(rig: Rig) -> None:
    rig.deadlines.set("pit", 300_000)
    rig.deadlines.set("pit", 800_000)
    assert rig.timer.armed == 800_000


def test_set_that_does_not_change_the_earliest_leaves_the_timer_alone(rig: Rig) -> None:
    rig.deadlines.set("pit", 300_000)
    settings = rig.timer.settings
    rig.deadlines.set("pit", 300_000)
    rig.deadlines.set("rtc", 400_000)
    assert rig.timer.settings == settings


def test_set_deadline_that_is_past_arms_for_at_once(rig: Rig) -> None:
    rig.host_now = 1_000_000
    rig.deadlines.set("pit", 300_000)
    assert rig.timer.armed == 0


def test_due_gives_those_that_have_come_earliest_first_and_once(rig: Rig) -> None:
    rig.deadlines.set("a", 300_000)
    rig.deadlines.set("b", 200_000)
    rig.deadlines.set("c", 300_001)
    rig.host_now = 300_000
    assert rig.deadlines.due() == ["b", "a"]
    assert rig.timer.armed == 1
    assert rig.deadlines.due() == []
    rig.host_now = 300_001
    assert rig.deadlines.due() == ["c"]


def test_due_before_the_time_arms_again(rig: Rig) -> None:
    rig.deadlines.set("a", 300_000)
    rig.host_now = 299_999
    settings = rig.timer.settings
    assert rig.deadlines.due() == []
    assert rig.timer.settings == settings + 1
    assert rig.timer.armed == 1


def test_set_after_due_is_put_off_by_the_least_interval(rig: Rig) -> None:
    rig.deadlines.set("pit", 200_000)
    rig.host_now = 250_000
    assert rig.deadlines.due() == ["pit"]
    rig.deadlines.set("pit", 251_000)
    assert rig.timer.armed == MIN_INTERVAL
    rig.host_now = 250_000 + MIN_INTERVAL - 1
    assert rig.deadlines.due() == []
    rig.host_now += 1
    assert rig.deadlines.due() == ["pit"]


def test_least_interval_counts_for_each_name_alone(rig: Rig) -> None:
    rig.deadlines.set("pit", 200_000)
    rig.host_now = 200_000
    rig.deadlines.due()
    rig.deadlines.set("rtc", 200_001)
    assert rig.timer.armed == 1


def test_first_deadline_is_not_put_off(rig: Rig) -> None:
    rig.deadlines.set("pit", 1)
    assert rig.timer.armed == 1


def test_deadline_beyond_the_least_interval_is_kept_exactly(rig: Rig) -> None:
    rig.deadlines.set("pit", 200_000)
    rig.host_now = 200_000
    rig.deadlines.due()
    rig.deadlines.set("pit", 200_000 + MIN_INTERVAL + 7)
    assert rig.timer.armed == MIN_INTERVAL + 7


def test_held_clock_disarms_and_rearm_goes_on_where_it_was(rig: Rig) -> None:
    rig.deadlines.set("pit", 500_000)
    rig.host_now = 100_000
    rig.clock.hold()
    rig.deadlines.rearm()
    assert rig.timer.armed is None
    rig.host_now = 900_000
    assert rig.deadlines.due() == []
    rig.clock.release()
    rig.deadlines.rearm()
    assert rig.timer.armed == 400_000


def test_set_while_the_clock_is_held_waits_for_rearm(rig: Rig) -> None:
    rig.clock.hold()
    rig.deadlines.rearm()
    rig.deadlines.set("pit", 300_000)
    assert rig.timer.armed is None
    rig.clock.release()
    rig.deadlines.rearm()
    assert rig.timer.armed == 300_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 2_000_000)), st.integers(0, 300_000)
        )
    )
)
def test_timer_is_always_armed_for_the_earliest_and_intervals_hold(
    steps: list[tuple[str, int | None, int]],
) -> None:
    rig = Rig()
    told: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for name, deadline, pause in steps:
        rig.deadlines.set(name, deadline)
        wanted.pop(name, None)
        if deadline is not None:
            wanted[name] = max(deadline, told.get(name, -MIN_INTERVAL) + MIN_INTERVAL)
        rig.host_now += pause
        for due in rig.deadlines.due():
            assert rig.host_now - told.get(due, -MIN_INTERVAL) >= MIN_INTERVAL
            told[due] = rig.host_now
            assert wanted.pop(due) <= rig.host_now
        assert all(later > rig.host_now for later in wanted.values())
        if wanted:
            assert rig.timer.armed == min(wanted.values()) - rig.host_now


@pytest.fixture
def timerfd() -> Iterator[Timerfd]:
    timer = Timerfd()
    yield timer
    timer.close()


def readable(timer: Timerfd, milliseconds: int | None) -> bool:
    poll = select.poll()
    poll.register(timer.descriptor, select.POLLIN)
    return bool(poll.poll(milliseconds))


def test_timerfd_armed_for_at_once_becomes_readable_and_is_cleared(timerfd: Timerfd) -> None:
    assert not readable(timerfd, 0)
    timerfd.arm(0)
    assert readable(timerfd, None)
    timerfd.clear()
    assert not readable(timerfd, 0)
    timerfd.clear()  # nothing to take, no wait either


def test_timerfd_rearmed_or_disarmed_forgets_the_former_setting(timerfd: Timerfd) -> None:
    timerfd.arm(0)
    assert readable(timerfd, None)
    timerfd.arm(1 << 62)
    assert not readable(timerfd, 0)
    timerfd.arm(-5)
    assert readable(timerfd, None)
    timerfd.disarm()
    assert not readable(timerfd, 0)


def test_timerfd_takes_the_largest_deadline_there_is(timerfd: Timerfd) -> None:
    timerfd.arm((1 << 64) - 2)
    assert not readable(timerfd, 0)


def test_timerfd_close_is_idempotent() -> None:
    timer = Timerfd()
    timer.close()
    timer.close()
    assert timer.descriptor == -1
