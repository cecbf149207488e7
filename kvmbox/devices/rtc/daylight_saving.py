"""The two special updates of a year that register B's DSE bit enables (MC146818A, "Daylight Savings Enable").

With DSE set, 1:59:59 AM is followed by 3:00:00 AM on the last Sunday in April, and the first 1:59:59 AM by
1:00:00 AM on the last Sunday in October. These are the United States' rules of the years before 1987, and the
chip knows no others. It knows Sunday from its own day-of-week register.
"""

from __future__ import annotations

from kvmbox.devices.rtc.calendar import (
    SECONDS_PER_DAY,
    SUNDAY,
    civil_from_days,
    days_from_civil,
    weekday_from_days,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_TWO_O_CLOCK: Final = 7_200
_HOUR: Final = 3_600


def next_special_update(wall: int, weekday_shift: int, fallen_back_on: int | None) -> tuple[int, int]:
    """The next special update after the time `wall` (seconds since 1970): (when, change).

    `when` is the time that a plain update would have shown (2:00:00), `change` is what the special update
    adds to it: +3600 or -3600 seconds. `weekday_shift` is the register's day of the week less the
    calendar's; `fallen_back_on` is the day number on which the October update was the last one done.
    """
    year, _, _ = civil_from_days(wall // SECONDS_PER_DAY)
    while True:
        for month, last_day, change in ((4, 30, _HOUR), (10, 31, -_HOUR)):
            day = _last_sunday(year, month, last_day, weekday_shift)
            when = day * SECONDS_PER_DAY + _TWO_O_CLOCK
            # The hour before 2:00 comes twice in October; the second time the clock just goes on.
            if when > wall and (change > 0 or day != fallen_back_on):
                return when, change
        year += 1  # at most once: next April is after any time of this year


def _last_sunday(year: int, month: int, last_day: int, weekday_shift: int) -> int:
    last = days_from_civil(year, month, last_day)
    return last - (weekday_from_days(last) + weekday_shift - SUNDAY) % 7
