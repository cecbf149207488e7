"""Guest time: held, released, skipped."""

from __future__ import annotations

import pytest

from kvmbox.host.clock import GuestClock


class HostClock:
    """A host clock that the test moves."""

    def __init__(self, start: int = 1_000) -> None:
        self.now = start

    def __call__(self) -> int:
        return self.now


def test_clock_starts_held_at_zero() -> None:
    host = HostClock()
    clock = GuestClock(host)
    host.now += 500
    assert clock.now() == 0
    assert clock.until(300) is None


def test_clock_released_follows_the_host_from_where_it_was_held() -> None:
    host = HostClock()
    clock = GuestClock(host)
    host.now += 500
    clock.release()
    host.now += 40
    assert clock.now() == 40


def test_clock_held_stands_still_and_goes_on_without_a_jump() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    host.now += 40
    clock.hold()
    host.now += 1_000_000
    assert clock.now() == 40
    clock.release()
    host.now += 2
    assert clock.now() == 42


def test_clock_hold_and_release_twice_change_nothing() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    host.now += 40
    clock.release()
    assert clock.now() == 40
    clock.hold()
    host.now += 5
    clock.hold()
    assert clock.now() == 40


def test_until_tells_host_time_to_a_guest_time_and_never_less_than_zero() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    host.now += 100
    assert clock.until(250) == 150
    assert clock.until(100) == 0
    assert clock.until(20) == 0


def test_skip_to_moves_a_held_clock_forward_only() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.skip_to(700)
    assert clock.now() == 700
    clock.skip_to(300)
    assert clock.now() == 700
    clock.release()
    host.now += 1
    assert clock.now() == 701


def test_skip_to_of_a_running_clock_raises() -> None:
    clock = GuestClock(HostClock())
    clock.release()
    with pytest.raises(RuntimeError, match="runs"):
        clock.skip_to(5)


def test_clock_of_the_host_never_decreases() -> None:
    clock = GuestClock()
    clock.release()
    readings = [clock.now() for _ in range(100)]
    assert readings == sorted(readings)
    assert readings[0] >= 0
