"""The RTC's time, calendar and alarm bytes: seconds since 1970 to register bytes and back.

Register B tells the form: BCD or binary (DM), 24 hours, or 12 hours with bit 7 of the hour as PM (24/12).
MC146818A, "Time, Calendar and Alarm Locations", gives each byte's range. Outside it the chip's behaviour is
open; here every byte has a value, as in QEMU: BCD digits above 9 count for what they are, a don't-care code
in a time byte counts as -1, an hour of 12-hour mode is taken modulo 12, bit 7 of the hour means nothing in
24-hour mode, and what exceeds a field carries into the next.
"""

from __future__ import annotations

from kvmbox.devices.rtc.calendar import SECONDS_PER_DAY, civil_from_days, days_from_civil, weekday_from_days
from kvmbox.devices.rtc.registers import (
    B_24_12,
    B_DM,
    CENTURY,
    DATE_OF_MONTH,
    DAY_OF_WEEK,
    DONT_CARE,
    HOURS,
    HOURS_ALARM,
    HOURS_PM,
    MINUTES,
    MINUTES_ALARM,
    MONTH,
    REGISTER_B,
    SECONDS,
    SECONDS_ALARM,
    YEAR,
)


def encode_time(ram: bytearray, wall: int, weekday_shift: int) -> None:
    """Fill the time and calendar bytes for `wall` seconds since 1970; years show modulo 10,000."""
    days, second_of_day = divmod(wall, SECONDS_PER_DAY)
    year, month, day = civil_from_days(days)
    hour, rest = divmod(second_of_day, 3600)
    minute, second = divmod(rest, 60)
    century, year = divmod(year % 10_000, 100)
    pm = 0
    if not ram[REGISTER_B] & B_24_12:
        pm = HOURS_PM if hour >= 12 else 0
        hour = (hour - 1) % 12 + 1
    if not ram[REGISTER_B] & B_DM:
        second += second // 10 * 6
        minute += minute // 10 * 6
        hour += hour // 10 * 6
        day += day // 10 * 6
        month += month // 10 * 6
        year += year // 10 * 6
        century += century // 10 * 6
    ram[SECONDS] = second
    ram[MINUTES] = minute
    ram[HOURS] = hour | pm
    ram[DAY_OF_WEEK] = (weekday_from_days(days) + weekday_shift) % 7 + 1
    ram[DATE_OF_MONTH] = day
    ram[MONTH] = month
    ram[YEAR] = year
    ram[CENTURY] = century


def decode_time(ram: bytearray) -> int:
    """The seconds since 1970 that the time and calendar bytes stand for; the day of the week is not used."""
    register_b = ram[REGISTER_B]
    days = days_from_civil(
        _time_value(register_b, ram[CENTURY]) * 100 + _time_value(register_b, ram[YEAR]),
        _time_value(register_b, ram[MONTH]),
        _time_value(register_b, ram[DATE_OF_MONTH]),
    )
    hour = ram[HOURS]
    if register_b & B_24_12:
        hour &= ~HOURS_PM
    return (
        days * SECONDS_PER_DAY
        + _hour_value(register_b, hour) * 3600
        + _time_value(register_b, ram[MINUTES]) * 60
        + _time_value(register_b, ram[SECONDS])
    )


def decode_day_of_week(ram: bytearray) -> int:
    """The day-of-week byte as 0 (Sunday) to 6; what is not 1..7 counts modulo 7."""
    return (_time_value(ram[REGISTER_B], ram[DAY_OF_WEEK]) - 1) % 7


def decode_alarm(ram: bytearray) -> tuple[int | None, int | None, int | None]:
    """The alarm's hour (0..23), minute and second; None for a don't-care. Values may be out of range."""
    register_b = ram[REGISTER_B]
    hour, minute, second = ram[HOURS_ALARM], ram[MINUTES_ALARM], ram[SECONDS_ALARM]
    return (
        None if hour & DONT_CARE == DONT_CARE else _hour_value(register_b, hour),
        None if minute & DONT_CARE == DONT_CARE else _value(register_b, minute),
        None if second & DONT_CARE == DONT_CARE else _value(register_b, second),
    )


def _value(register_b: int, byte: int) -> int:
    return byte if register_b & B_DM else (byte >> 4) * 10 + (byte & 0x0F)


def _time_value(register_b: int, byte: int) -> int:
    return -1 if byte & DONT_CARE == DONT_CARE else _value(register_b, byte)


def _hour_value(register_b: int, byte: int) -> int:
    if register_b & B_24_12:
        return _value(register_b, byte)
    return _value(register_b, byte & ~HOURS_PM) % 12 + (12 if byte & HOURS_PM else 0)
