"""The watchdog: slices are counted, per channel, as long as its open request is the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES, START_SLICES
from kvmbox.remote.channel.watchdog import Watchdog
from kvmbox.remote.process.crash_policy import ProcessControl, Survival
from tests.support.links import Nowhere


def channel(name: str = "uart", survival: Survival | None = None) -> Channel:
    return Channel(name, Nowhere(), [], now=lambda: 0, survival=survival)


def ticks(watchdog: Watchdog, count: int) -> list[Channel | None]:
    return [watchdog.tick() for _ in range(count)]


def test_tick_idle_channel_is_never_hung() -> None:
    assert ticks(Watchdog([channel()], limit=3), 10) == [None] * 10


def test_tick_request_that_stays_open_is_hung_after_the_limit() -> None:
    uart = channel()
    watchdog = Watchdog([uart], limit=3)
    uart.waiting = 7
    # The slice in which it was first seen may have begun before it.
    assert ticks(watchdog, 4) == [None, None, None, uart]
    assert watchdog.tick() is uart


def test_tick_counts_from_the_first_sight_of_each_request() -> None:
    uart = channel()
    watchdog = Watchdog([uart], limit=3)
    for sequence in range(1, 30):
        uart.waiting = sequence
        assert ticks(watchdog, 3) == [None] * 3


def test_tick_request_that_was_answered_in_between_counts_anew() -> None:
    uart = channel()
    watchdog = Watchdog([uart], limit=3)
    uart.waiting = 7
    ticks(watchdog, 3)
    uart.waiting = 0
    watchdog.tick()
    uart.waiting = 7
    assert ticks(watchdog, 4) == [None, None, None, uart]


def test_tick_names_the_channel_that_is_hung() -> None:
    uart, pit, rtc = channel("uart"), channel("pit"), channel("rtc")
    watchdog = Watchdog([uart, pit, rtc], limit=2)
    pit.waiting = 1
    for sequence in range(1, 3):
        uart.waiting = sequence
        assert watchdog.tick() is None
    assert watchdog.tick() is pit


def test_tick_without_channels_has_nothing_to_tell() -> None:
    assert Watchdog([]).tick() is None


def test_limit_is_that_of_every_other_wait() -> None:
    uart = channel()
    watchdog = Watchdog([uart])
    uart.waiting = 1
    assert ticks(watchdog, REPLY_SLICES) == [None] * REPLY_SLICES
    assert watchdog.tick() is uart


@pytest.mark.parametrize("limit", [1, 5])
def test_suspended_vmm_that_does_not_tick_uses_up_nothing(limit: int) -> None:
    # There is no clock in it: only calls of `tick` count.
    uart = channel()
    watchdog = Watchdog([uart], limit=limit)
    uart.waiting = 1
    assert ticks(watchdog, limit) == [None] * limit


class Starving(ProcessControl):
    """A process that is starved for so many slices, and for which thread it was asked each time."""

    def __init__(self, slices: int) -> None:
        self.left = slices
        self.asked: list[int] = []

    def starvation(self, waiter: int = 0) -> Callable[[], bool]:
        self.asked.append(waiter)
        return self.is_starved

    def is_starved(self) -> bool:
        self.left -= 1
        return self.left >= 0


def test_tick_excused_process_is_not_hung_until_the_excuse_ends() -> None:
    process = Starving(5)
    uart = channel(survival=Survival(process))
    watchdog = Watchdog([uart], limit=3)
    uart.waiting, uart.waiter = 7, 17
    assert ticks(watchdog, 3 + 5) == [None] * 8
    assert watchdog.tick() is uart
    assert process.asked == [17]


def test_tick_nobody_is_asked_for_an_excuse_within_the_limit() -> None:
    process = Starving(1)
    uart = channel(survival=Survival(process))
    watchdog = Watchdog([uart], limit=3)
    uart.waiting = 7
    ticks(watchdog, 3)
    assert process.asked == []


def test_tick_next_request_needs_an_excuse_of_its_own() -> None:
    process = Starving(1000)
    uart = channel(survival=Survival(process))
    watchdog = Watchdog([uart], limit=3)
    for sequence in (1, 2):
        uart.waiting, uart.waiter = sequence, 10 * sequence
        ticks(watchdog, 6)
    assert process.asked == [10, 20]


def test_tick_no_excuse_lasts_for_ever() -> None:
    uart = channel(survival=Survival(Starving(1 << 30)))
    watchdog = Watchdog([uart], limit=3)
    uart.waiting = 1
    assert ticks(watchdog, START_SLICES) == [None] * START_SLICES
    assert watchdog.tick() is uart


def test_tick_tells_that_a_reply_is_overdue_and_that_it_is_not_any_more() -> None:
    heard: list[bool] = []

    class Overdue(Survival):
        def overdue(self, late: bool) -> None:
            heard.append(late)

    uart = channel(survival=Overdue())
    watchdog = Watchdog([uart], limit=3)
    for sequence in range(1, 5):
        uart.waiting = sequence
        watchdog.tick()
    assert heard == []
    ticks(watchdog, 2)  # the last of them is still open
    assert heard == [True]
    uart.waiting = 5
    watchdog.tick()
    assert heard == [True, False]
    watchdog.tick()
    uart.waiting = 0
    ticks(watchdog, 3)
    assert heard == [True, False, True, False]


class Replaced(ProcessControl):
    """A process; its number says which, counting replacements."""

    def __init__(self) -> None:
        self.number = 1
        self.killed: list[tuple[int, str]] = []
        self.in_killer: Callable[[], None] = lambda: None

    def killer(self) -> Callable[[DeviceProcessError], None]:
        self.in_killer()
        number = self.number
        return lambda cause: self.killed.append((number, str(cause)))


def test_kill_is_of_the_process_that_the_tick_saw() -> None:
    process = Replaced()
    uart = channel(survival=Survival(process))
    watchdog = Watchdog([uart], limit=1)
    uart.waiting = 1
    assert ticks(watchdog, 2) == [None, uart]
    process.number = 2  # between the tick and the kill
    watchdog.kill(uart)
    assert process.killed == [(1, "device process 'uart' is hung: no reply within 500 ms")]


def test_tick_request_that_ends_while_the_tick_looks_at_it_is_not_hung() -> None:
    process = Replaced()
    uart = channel(survival=Survival(process))
    watchdog = Watchdog([uart], limit=1)

    def rescue() -> None:
        uart.waiting = 0
        process.number = 2

    process.in_killer = rescue
    uart.waiting = 1
    assert ticks(watchdog, 3) == [None, None, None]


def test_tick_reply_that_comes_while_the_tick_looks_at_the_process_counts() -> None:
    class AnswersNow(ProcessControl):
        def starvation(self, waiter: int = 0) -> Callable[[], bool]:
            del waiter
            return self.is_starved

        def is_starved(self) -> bool:
            uart.waiting = 0  # to read /proc gives the GIL away: the thread that waits may run
            return False  # and the process waits for the next request

    uart = channel(survival=Survival(AnswersNow()))
    watchdog = Watchdog([uart], limit=1)
    uart.waiting = 1
    assert ticks(watchdog, 3) == [None, None, None]
