"""When the RTC's alarm matches next: arithmetic in place of a walk over the seconds of a day.

MC146818A, "Alarm": the alarm bytes are compared at every update; a byte with its two top bits set
(0xC0..0xFF) is a don't-care and matches any value. Whatever mixture is programmed, a match is at most
a day away, and it lies either in the hour where the search begins or in the next hour that fits.
"""

from __future__ import annotations

from kvmbox.devices.rtc.calendar import SECONDS_PER_DAY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_HOUR: Final = 3_600
_MINUTE: Final = 60


def seconds_to_alarm(
    second_of_day: int, hour: int | None, minute: int | None, second: int | None
) -> int | None:
    """How many updates after `second_of_day` (0..86399) the alarm matches: 1..86400, or None for never.

    None as `hour`, `minute` or `second` is a don't-care. A value that no time equals never matches.
    """
    if not (
        (hour is None or 0 <= hour < 24)
        and (minute is None or 0 <= minute < 60)
        and (second is None or 0 <= second < 60)
    ):
        return None
    start_hour, start = divmod((second_of_day + 1) % SECONDS_PER_DAY, _HOUR)
    if hour is None or hour == start_hour:
        match = _match_within_hour(start, minute, second)
        if match is not None:
            return 1 + match - start
    hours_on = 1 if hour is None else (hour - start_hour - 1) % 24 + 1
    match = _match_within_hour(0, minute, second)
    assert match is not None  # every valid minute and second occurs in a whole hour
    return 1 + hours_on * _HOUR + match - start


def _match_within_hour(start: int, minute: int | None, second: int | None) -> int | None:
    """The first second of the hour, from `start` (0..3599) on, that matches; None if the hour has no more."""
    if minute is None:
        if second is None:
            return start
        match = start - start % _MINUTE + second
        if match < start:
            match += _MINUTE
        return match if match < _HOUR else None
    first = minute * _MINUTE
    if second is not None:
        return first + second if first + second >= start else None
    match = max(start, first)
    return match if match < first + _MINUTE else None
