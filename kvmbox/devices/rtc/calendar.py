"""Calendar arithmetic for the RTC: pure integers, proleptic Gregorian calendar, no limits on the year.

Days are counted from 1970-01-01 (day 0), seconds from its midnight; both may be negative. `datetime` is
not used because a guest may write a 31st of February, an hour 85 or the year 19291 into the chip, and
the answer must be a number, never an exception.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


SECONDS_PER_DAY: Final = 86_400

SUNDAY: Final = 0
"""Days of the week count from Sunday here; the chip's register 6 holds this plus one."""

_DAYS_PER_400_YEARS: Final = 146_097
_DAYS_PER_100_YEARS: Final = 36_524
_DAYS_PER_4_YEARS: Final = 1_461
_DAYS_PER_YEAR: Final = 365
# 0000-03-01, where years are taken to begin so that the leap day is the last day of its year.
_MARCH_FIRST_YEAR_ZERO: Final = -719_468


def days_from_civil(year: int, month: int, day: int) -> int:
    """The day number of a date; a day outside its month, or a month outside 1..12, counts on from there."""
    if month < 3:
        month += 12
        year -= 1
    # Months from March on have 31, 30, 31, 30, 31 days over and over: 153 days in five months.
    day_of_year = (153 * (month - 3) + 2) // 5 + day - 1
    return (
        day_of_year + _DAYS_PER_YEAR * year + year // 4 - year // 100 + year // 400 + _MARCH_FIRST_YEAR_ZERO
    )


def civil_from_days(days: int) -> tuple[int, int, int]:
    """The (year, month 1..12, day 1..31) of a day number."""
    cycles, rest = divmod(days - _MARCH_FIRST_YEAR_ZERO, _DAYS_PER_400_YEARS)
    # The last century of a cycle and the last year of four are a day longer: the quotient stops at 3.
    centuries = min(rest // _DAYS_PER_100_YEARS, 3)
    rest -= centuries * _DAYS_PER_100_YEARS
    fours, rest = divmod(rest, _DAYS_PER_4_YEARS)
    years = min(rest // _DAYS_PER_YEAR, 3)
    rest -= years * _DAYS_PER_YEAR
    month_from_march = (5 * rest + 2) // 153
    day = rest - (153 * month_from_march + 2) // 5 + 1
    year = 400 * cycles + 100 * centuries + 4 * fours + years
    if month_from_march < 10:
        return year, month_from_march + 3, day
    return year + 1, month_from_march - 9, day


def weekday_from_days(days: int) -> int:
    """The day of the week of a day number, 0 = Sunday (1970-01-01 was a Thursday)."""
    return (days + 4) % 7
