"""Guest time: held, released, skipped, and on loan while the host stops kvmbox."""

from __future__ import annotations

import inspect
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.time.deadline_timer import Timerfd
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.jail.server import DeviceServer
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.channel.hello import greet
from kvmbox.remote.transport.direct import DirectLink
from kvmbox.wire.protocol import READ, request_word
from tests.support.fake_model import FakeModel
from tests.support.far_end import FarEnd
from tests.support.halves import Half

HOUR = 3_600_000_000_000


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


# --- On loan ----------------------------------------------------------------------------------------------


def lent(nanoseconds: int) -> tuple[HostClock, GuestClock]:
    """A clock that runs, with a loan, and the host's."""
    host = HostClock()
    clock = GuestClock(host)
    clock.lend(nanoseconds)
    clock.release()
    return host, clock


def test_clock_comes_no_further_than_its_loan_and_goes_on_from_there() -> None:
    host, clock = lent(100)
    host.now += 99
    assert clock.now() == 99
    host.now += 600_000_000  # the VMM was stopped
    assert clock.now() == 100
    assert clock.until(150) == 50
    assert clock.lend(100)
    assert clock.now() == 100
    host.now += 30
    assert clock.now() == 130
    assert (clock.stalls, clock.stalled) == (1, 599_999_999)


def test_clock_on_a_loan_that_is_renewed_in_time_is_the_hosts() -> None:
    host, clock = lent(100)
    for _ in range(50):
        host.now += 100
        assert not clock.lend(100)
    assert clock.now() == 5_000
    assert (clock.stalls, clock.stalled) == (0, 0)


def test_clock_on_loan_that_is_held_stands_where_the_loan_ended() -> None:
    host, clock = lent(100)
    host.now += 400
    clock.hold()
    assert clock.now() == 100
    assert not clock.lend(100)  # a clock that is held needs none
    host.now += 400
    clock.release()
    host.now += 7
    assert clock.now() == 107
    assert clock.stalls == 0


def test_clock_on_loan_that_is_skipped_beyond_it_does_not_go_back() -> None:
    host, clock = lent(100)
    clock.hold()
    clock.skip_to(700)
    clock.release()
    assert clock.now() == 700
    host.now += 50
    assert clock.now() == 700
    assert clock.lend(100)
    host.now += 50
    assert clock.now() == 750


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["lend", "pause", "resume", "hold", "release"]),
        st.integers(0, 1_000),
        # What the host does: nothing of note, a stop, a suspension for a day.
        st.sampled_from([0, 1, 7, 500, 600_000_000, 86_400_000_000_000]),
    ),
    max_size=60,
)


@given(STEPS)
def test_clock_on_loan_never_goes_back_and_never_exceeds_what_was_lent(
    steps: list[tuple[str, int, int]],
) -> None:
    host, clock = lent(100)
    before, end, pauses = 0, 100, 0
    for what, loan, passed in steps:
        if what == "lend":
            clock.lend(loan)
            end = clock.now() + loan
        elif what == "pause" or (what == "resume" and pauses):
            pauses += 1 if what == "pause" else -1
            getattr(clock, what)()
        elif what in ("hold", "release"):
            getattr(clock, what)()
        assert clock.now() >= before  # whatever was done took no time
        host.now += passed
        assert before <= clock.now() <= end
        before = clock.now()


def test_clock_of_the_host_is_the_one_that_neither_settings_nor_suspension_move() -> None:
    # CLOCK_REALTIME jumps with settings, and CLOCK_BOOTTIME counts a suspension (clock_gettime(2)).
    assert inspect.signature(GuestClock).parameters["host_now"].default is time.monotonic_ns
    assert time.get_clock_info("monotonic").implementation == "clock_gettime(CLOCK_MONOTONIC)"
    timer = Timerfd()
    fields = dict(
        line.split(":") for line in Path(f"/proc/self/fdinfo/{timer.descriptor}").read_text().splitlines()
    )
    timer.close()
    assert int(fields["clockid"]) == time.CLOCK_MONOTONIC


def test_access_beyond_the_loan_has_the_time_of_its_end(half: Half) -> None:
    clock = half.clock()
    clock.lend(0)
    clock.release()
    model = FakeModel()
    channel = half.channel(
        "fake",
        DirectLink(lambda: DeviceServer(build=lambda _name, _parameters: model)),
        [Grants("fake")],
        now=clock.now,
    )
    greet(channel, [DeviceSpec("fake", "fake", "fake")])
    word = request_word(READ, 0, 1)
    for _ in range(2):
        channel.access(word, 0, 0, 0xFF)
    far = FarEnd()
    other = half.channel("far", far.link, [Grants("far")], now=clock.now)
    far.reply(READ, size=1)
    other.access(word, 0, 0, 0xFF)
    times = [call[1] for call in model.calls if call[0] == "read"]
    assert times == [0, 0]
    assert [request.now for request in far.asked()] == [0]
    assert clock.now() == 0
    clock.lend(HOUR)
    channel.access(word, 0, 0, 0xFF)
    assert 0 <= clock.now() <= HOUR
    channel.close()
    other.close()
    far.close()
