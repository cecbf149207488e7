"""Daylight saving (register B bit 0): the two special updates of a year."""

from __future__ import annotations

import datetime

import pytest

from kvmbox.devices.rtc.daylight_saving import next_special_update
from kvmbox.devices.rtc.model import RtcMc146818

SECOND = 1_000_000_000
DAY_NS = 86_400 * SECOND
B_24_HOURS_BINARY_DSE = 0x07


def seconds(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp())


class Board:
    def __init__(self, start: str, control: int = B_24_HOURS_BINARY_DSE) -> None:
        self.model = RtcMc146818(base_seconds=seconds(start), memory_bytes=0)
        self.now = 0
        self.write(0x0B, control)

    def write(self, register: int, value: int) -> None:
        self.model.write(self.now, 0, 1, register)
        self.model.write(self.now, 1, 1, value)

    def read(self, register: int) -> int:
        self.model.write(self.now, 0, 1, register)
        return self.model.read(self.now, 1, 1)

    def step(self, ns: int) -> None:
        self.now += ns
        self.model.advance(self.now)

    def shown(self) -> str:
        century, year, month, day, hour, minute, second = (
            self.read(r) for r in (0x32, 0x09, 0x08, 0x07, 0x04, 0x02, 0x00)
        )
        return f"{century:02}{year:02}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"


@pytest.mark.parametrize(
    ("wall", "when", "change"),
    [
        ("2024-01-01 00:00:00", "2024-04-28 02:00:00", 3600),
        ("2024-04-28 01:59:59", "2024-04-28 02:00:00", 3600),
        ("2024-04-28 02:00:00", "2024-10-27 02:00:00", -3600),
        ("2023-05-01 00:00:00", "2023-10-29 02:00:00", -3600),
        ("2024-10-27 02:00:00", "2025-04-27 02:00:00", 3600),
        ("2024-12-31 23:59:59", "2025-04-27 02:00:00", 3600),
        ("2028-01-01 00:00:00", "2028-04-30 02:00:00", 3600),
        ("2027-05-01 00:00:00", "2027-10-31 02:00:00", -3600),
    ],
)
def test_daylight_next_special_update_is_on_the_last_sunday(wall: str, when: str, change: int) -> None:
    assert next_special_update(seconds(wall), 0, None) == (seconds(when), change)


def test_daylight_in_april_follows_1_59_59_with_3_00_00() -> None:
    rtc = Board("2024-04-28 01:59:58")
    rtc.step(SECOND)
    assert rtc.shown() == "2024-04-28 01:59:59"
    rtc.step(SECOND)
    assert rtc.shown() == "2024-04-28 03:00:00"
    rtc.step(3600 * SECOND)
    assert rtc.shown() == "2024-04-28 04:00:00"


def test_daylight_in_october_repeats_one_hour_once() -> None:
    rtc = Board("2024-10-27 01:59:59")
    rtc.step(SECOND)
    assert rtc.shown() == "2024-10-27 01:00:00"
    rtc.step(3600 * SECOND)
    assert rtc.shown() == "2024-10-27 02:00:00"


def test_daylight_off_does_nothing() -> None:
    rtc = Board("2024-04-28 01:59:59", control=0x06)
    rtc.step(SECOND)
    assert rtc.shown() == "2024-04-28 02:00:00"


def test_daylight_switched_off_in_summer_keeps_the_hour() -> None:
    rtc = Board("2024-04-28 01:59:59")
    rtc.step(SECOND)
    rtc.write(0x0B, 0x06)
    rtc.step(183 * DAY_NS)
    assert rtc.shown() == "2024-10-28 03:00:00"


def test_daylight_goes_by_the_weekday_register() -> None:
    rtc = Board("2024-04-24 01:59:59")
    rtc.write(0x06, 1)  # the guest says that this Wednesday is a Sunday
    rtc.step(SECOND)
    assert rtc.shown() == "2024-04-24 03:00:00"


def test_daylight_time_set_again_in_october_repeats_the_hour_again() -> None:
    rtc = Board("2024-10-27 01:59:59")
    rtc.step(SECOND)
    rtc.write(0x02, 59)
    rtc.write(0x00, 59)
    rtc.step(SECOND)
    assert rtc.shown() == "2024-10-27 01:00:00"


def test_daylight_does_not_move_while_set() -> None:
    rtc = Board("2024-04-28 01:59:59")
    rtc.write(0x0B, 0x80 | B_24_HOURS_BINARY_DSE)
    rtc.step(DAY_NS)
    assert rtc.shown() == "2024-04-28 01:59:59"
    rtc.write(0x0B, B_24_HOURS_BINARY_DSE)
    rtc.step(SECOND)
    assert rtc.shown() == "2024-04-28 03:00:00"


@pytest.mark.parametrize(
    ("start", "alarm", "wait"),
    [
        ("2024-04-28 01:59:50", (3, 0, 0), 10),  # what the special update shows matches
        ("2024-04-28 01:59:50", (3, 0, 1), 11),
        ("2024-04-28 01:59:50", (2, 30, 0), 10 + 21 * 3600 + 9000),  # no 2:30 on that day
        ("2024-10-27 01:59:50", (2, 0, 0), 3610),
        ("2024-10-27 01:59:50", (1, 0, 0), 10),
        ("2024-10-27 01:30:00", (1, 30, 0), 3600),  # a second 1:30
        ("2024-10-27 01:30:00", (0xFF, 0xFF, 0), 60),
    ],
)
def test_daylight_alarm_counts_the_seconds_that_are(
    start: str, alarm: tuple[int, int, int], wait: int
) -> None:
    rtc = Board(start)
    for register, value in zip((0x05, 0x03, 0x01), alarm, strict=True):
        rtc.write(register, value)
    rtc.step((wait - 1) * SECOND)
    assert not rtc.read(0x0C) & 0x20
    rtc.step(SECOND)
    assert rtc.read(0x0C) & 0x20


@pytest.mark.parametrize("years", [1, 7, 150, 290])
def test_daylight_jump_of_years_equals_steps(years: int) -> None:
    jump, steps = Board("2000-01-01 12:00:00"), Board("2000-01-01 12:00:00")
    target = years * 365 * DAY_NS + 100 * DAY_NS
    jump.step(target)
    while steps.now < target:
        steps.step(min(41 * DAY_NS, target - steps.now))
    assert jump.shown() == steps.shown()
    assert jump.model.next_deadline() == steps.model.next_deadline()
    assert jump.model.snapshot() == steps.model.snapshot()
