"""Calendar arithmetic, against critical dates and Python's datetime."""

from __future__ import annotations

import datetime

import pytest

from kvmbox.devices.rtc.calendar import SUNDAY, civil_from_days, days_from_civil, weekday_from_days

EPOCH = datetime.date(1970, 1, 1).toordinal()


@pytest.mark.parametrize(
    ("date", "days"),
    [
        ((1970, 1, 1), 0),
        ((1969, 12, 31), -1),
        ((2000, 2, 29), 11_016),
        ((2000, 3, 1), 11_017),
        ((2100, 2, 28), 47_540),
        ((2100, 3, 1), 47_541),
        ((1, 1, 1), -719_162),
        ((0, 2, 29), -719_469),
        ((0, 3, 1), -719_468),
        ((-1, 12, 31), -719_529),
    ],
)
def test_calendar_date_and_day_number_are_each_others_inverse(date: tuple[int, int, int], days: int) -> None:
    assert days_from_civil(*date) == days
    assert civil_from_days(days) == date


def test_calendar_every_day_of_eight_centuries_agrees_with_datetime() -> None:
    day = datetime.date(1599, 12, 31)
    step = datetime.timedelta(days=1)
    while day.year < 2402:
        days = day.toordinal() - EPOCH
        assert days_from_civil(day.year, day.month, day.day) == days
        assert civil_from_days(days) == (day.year, day.month, day.day)
        assert weekday_from_days(days) == day.isoweekday() % 7
        day += step


@pytest.mark.parametrize(
    ("odd", "plain"),
    [
        ((2023, 2, 31), (2023, 3, 3)),
        ((2023, 3, 0), (2023, 2, 28)),
        ((2023, 0, 5), (2022, 12, 5)),
        ((2023, 13, 5), (2024, 1, 5)),
        ((2023, 14, 29), (2024, 2, 29)),
    ],
)
def test_calendar_date_out_of_range_counts_on(odd: tuple[int, int, int], plain: tuple[int, int, int]) -> None:
    assert days_from_civil(*odd) == days_from_civil(*plain)


def test_calendar_sunday_is_zero() -> None:
    assert weekday_from_days(days_from_civil(2024, 4, 28)) == SUNDAY
