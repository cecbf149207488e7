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


def test_clock_pause_stands_still_and_resume_goes_on_without_a_jump() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    host.now += 40
    clock.pause()
    host.now += 1_000
    assert clock.now() == 40
    assert clock.until(100) is None
    clock.resume()
    host.now += 2
    assert clock.now() == 42
    assert clock.until(100) == 58


def test_clock_stands_until_everybody_who_paused_has_resumed() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    for _ in range(3):
        clock.pause()
    for _ in range(2):
        clock.resume()
        host.now += 10
        assert clock.now() == 0
    clock.resume()
    host.now += 10
    assert clock.now() == 10


@pytest.mark.parametrize("release_first", [False, True])
def test_clock_that_is_held_and_paused_needs_both_to_end(release_first: bool) -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    host.now += 5
    clock.pause()
    clock.hold()
    host.now += 100
    for end in (clock.release, clock.resume) if release_first else (clock.resume, clock.release):
        assert clock.now() == 5
        end()
    host.now += 1
    assert clock.now() == 6


def test_clock_pause_while_held_keeps_what_it_was_skipped_to() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.pause()
    clock.skip_to(700)
    clock.resume()
    assert clock.now() == 700
    clock.release()
    host.now += 1
    assert clock.now() == 701


def test_clock_never_goes_back_however_it_is_paused() -> None:
    host = HostClock()
    clock = GuestClock(host)
    clock.release()
    seen = 0
    for step in range(200):
        host.now += step % 7
        (clock.pause if step % 3 == 0 else clock.resume if step % 3 == 1 else clock.now)()
        assert clock.now() >= seen
        seen = clock.now()
