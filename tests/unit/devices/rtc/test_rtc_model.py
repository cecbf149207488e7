"""The MC146818A: registers, time, update cycle, holds, alarm and periodic interrupts."""

from __future__ import annotations

import datetime

import pytest

from kvmbox.contract.model import IrqLine, SnapshotError
from kvmbox.devices.rtc.model import LAST_NOW, RtcMc146818

SECOND = 1_000_000_000
TICK_6_NS = 976_563  # 32 ticks of 32,768 Hz, 1 ns late as with PIE

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
WEEKDAY, DAY, MONTH, YEAR, A, B, C, D = range(6, 14)
CENTURY = 0x32

SET, PIE, AIE, UIE, SQWE, DM, H24, DSE = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02, 0x01
IRQF, PF, AF, UF = 0x80, 0x40, 0x20, 0x10
RAISED, LOWERED = IrqLine(0, 1), IrqLine(0, 0)


class Board:
    """The model with a hand on its clock: `rtc[register]` reads, `rtc[register] = value` writes."""

    def __init__(self, start: str = "2023-11-14 22:13:20", memory: int = 128 << 20) -> None:
        moment = datetime.datetime.fromisoformat(start).replace(tzinfo=datetime.UTC)
        self.model = RtcMc146818(base_seconds=int(moment.timestamp()), memory_bytes=memory)
        self.now = 0

    def __getitem__(self, register: int) -> int:
        self.model.write(self.now, 0, 1, register)
        return self.model.read(self.now, 1, 1)

    def __setitem__(self, register: int, value: int) -> None:
        self.model.write(self.now, 0, 1, register)
        self.model.write(self.now, 1, 1, value)

    def step(self, ns: int) -> None:
        self.now += ns
        self.model.advance(self.now)

    def date(self) -> tuple[int, ...]:
        return tuple(self[r] for r in (CENTURY, YEAR, MONTH, DAY, WEEKDAY))

    def time(self) -> tuple[int, ...]:
        return tuple(self[r] for r in (HOURS, MINUTES, SECONDS))

    def set_time(self, hours: int, minutes: int, seconds: int) -> None:
        control = self[B]
        self[B] = control | SET
        self[HOURS], self[MINUTES], self[SECONDS] = hours, minutes, seconds
        self[B] = control

    def set_alarm(self, hours: int, minutes: int, seconds: int) -> None:
        self[HOURS_ALARM], self[MINUTES_ALARM], self[SECONDS_ALARM] = hours, minutes, seconds

    def seconds_to_flag(self, flag: int, limit: int) -> int | None:
        """Steps second by second until `flag` appears in register C."""
        for count in range(1, limit + 1):
            self.step(SECOND)
            if self[C] & flag:
                return count
        return None


# --- Power-on, index, RAM --------------------------------------------------------------------------------


def test_rtc_power_on_shows_board_defaults() -> None:
    rtc = Board()
    assert [rtc[r] for r in (A, B, C, D)] == [0x26, 0x02, 0x00, 0x80]
    assert rtc.date() == (0x20, 0x23, 0x11, 0x14, 3)
    assert rtc.time() == (0x22, 0x13, 0x20)
    assert [rtc[r] for r in (SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM)] == [0, 0, 0]
    assert rtc.model.take_effects() == []


def test_rtc_index_port_read_gives_ones() -> None:
    rtc = Board()
    rtc.model.write(0, 0, 1, 0x0D)
    assert rtc.model.read(0, 0, 1) == 0xFF


def test_rtc_index_bit7_is_the_nmi_mask_and_ignored() -> None:
    rtc = Board()
    rtc[0x80 | 0x40] = 0x5A
    assert rtc[0x40] == 0x5A
    assert rtc[0x80 | D] == 0x80


def test_rtc_nvram_is_plain_at_every_other_address() -> None:
    rtc = Board()
    plain = [r for r in range(0x0E, 0x80) if r != CENTURY]
    for register in plain:
        rtc[register] = register ^ 0xA5
    rtc.step(7 * SECOND)
    assert [rtc[r] for r in plain] == [r ^ 0xA5 for r in plain]


def test_rtc_registers_c_and_d_ignore_writes() -> None:
    rtc = Board()
    rtc[C], rtc[D] = 0xFF, 0x00
    assert (rtc[C], rtc[D]) == (0, 0x80)


def test_rtc_register_b_keeps_square_wave_and_mode_bits() -> None:
    rtc = Board()
    for value in (0x00, SQWE, DM | H24, DSE, PIE | AIE | UIE | 0x0F):
        rtc[B] = value
        assert rtc[B] == value


def test_rtc_register_a_uip_is_read_only() -> None:
    rtc = Board()
    rtc[A] = 0xAF
    assert rtc[A] == 0x2F


@pytest.mark.parametrize("start", ["0001-01-01 00:00:00", "1969-12-31 23:59:58", "9999-12-31 23:59:58"])
def test_rtc_base_far_from_1970_shows_its_date(start: str) -> None:
    rtc = Board(start)
    moment = datetime.datetime.fromisoformat(start)
    assert rtc.date() == (
        int(f"{moment.year // 100:02}", 16),
        int(f"{moment.year % 100:02}", 16),
        int(f"{moment.month:02}", 16),
        int(f"{moment.day:02}", 16),
        moment.isoweekday() % 7 + 1,
    )


@pytest.mark.parametrize("base", [-(1 << 60) - 1, (1 << 60) + 1])
def test_rtc_base_out_of_range_raises_value_error(base: int) -> None:
    with pytest.raises(ValueError, match="base_seconds"):
        RtcMc146818(base_seconds=base, memory_bytes=0)


def test_rtc_negative_memory_raises_value_error() -> None:
    with pytest.raises(ValueError, match="memory_bytes"):
        RtcMc146818(base_seconds=0, memory_bytes=-1)


# --- Formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "hour", "expected"),
    [
        (H24, 0, 0x00), (H24, 12, 0x12), (H24, 23, 0x23),
        (H24 | DM, 0, 0), (H24 | DM, 12, 12), (H24 | DM, 23, 23),
        (0, 0, 0x12), (0, 1, 0x01), (0, 11, 0x11), (0, 12, 0x92), (0, 13, 0x81), (0, 22, 0x90), (0, 23, 0x91),
        (DM, 0, 12), (DM, 1, 1), (DM, 11, 11), (DM, 12, 0x8C), (DM, 13, 0x81), (DM, 23, 0x8B),
    ],
)  # fmt: skip
def test_rtc_hours_follow_the_mode_and_can_be_set_in_it(mode: int, hour: int, expected: int) -> None:
    rtc = Board(f"2024-02-29 {hour:02}:34:56")
    rtc[B] = mode
    assert rtc[HOURS] == expected
    assert (rtc[MINUTES], rtc[SECONDS]) == ((34, 56) if mode & DM else (0x34, 0x56))
    rtc.set_time(1, 0, 0)
    rtc.set_time(expected, 0, 0)
    rtc[B] = H24 | DM
    assert rtc[HOURS] == hour


@pytest.mark.parametrize(
    ("mode", "before", "after"),
    [
        (0, (0x09, 0x59, 0x59), (0x10, 0x00, 0x00)),
        (0, (0x12, 0x59, 0x59), (0x01, 0x00, 0x00)),
        (0, (0x92, 0x59, 0x59), (0x81, 0x00, 0x00)),
        (0, (0x11, 0x59, 0x59), (0x92, 0x00, 0x00)),
        (0, (0x91, 0x59, 0x59), (0x12, 0x00, 0x00)),
        (DM, (0x0B, 59, 59), (0x8C, 0, 0)),
        (DM, (0x8B, 59, 59), (0x0C, 0, 0)),
        (H24, (0x09, 0x59, 0x59), (0x10, 0x00, 0x00)),
        (H24, (0x23, 0x59, 0x59), (0x00, 0x00, 0x00)),
        (H24 | DM, (23, 59, 59), (0, 0, 0)),
    ],
)
def test_rtc_time_rolls_over_in_every_mode(
    mode: int, before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    rtc = Board()
    rtc[B] = mode
    rtc.set_time(*before)
    rtc.step(SECOND)
    assert rtc.time() == after


@pytest.mark.parametrize(
    ("start", "date"),
    [
        ("1999-12-31 23:59:59", (0x20, 0x00, 0x01, 0x01, 7)),
        ("2000-02-28 23:59:59", (0x20, 0x00, 0x02, 0x29, 3)),
        ("2000-02-29 23:59:59", (0x20, 0x00, 0x03, 0x01, 4)),
        ("2023-02-28 23:59:59", (0x20, 0x23, 0x03, 0x01, 4)),
        ("2024-02-28 23:59:59", (0x20, 0x24, 0x02, 0x29, 5)),
        ("2100-02-28 23:59:59", (0x21, 0x00, 0x03, 0x01, 2)),
        ("2099-12-31 23:59:59", (0x21, 0x00, 0x01, 0x01, 6)),
        ("2023-04-30 23:59:59", (0x20, 0x23, 0x05, 0x01, 2)),
        ("2023-11-18 23:59:59", (0x20, 0x23, 0x11, 0x19, 1)),
    ],
)
def test_rtc_midnight_rolls_month_leap_day_century_and_weekday(start: str, date: tuple[int, ...]) -> None:
    rtc = Board(start)
    rtc.step(SECOND)
    assert rtc.date() == date
    assert rtc.time() == (0, 0, 0)


def test_rtc_weekday_written_is_a_counter_of_its_own() -> None:
    rtc = Board("2023-11-14 23:59:59")  # a Tuesday: 3
    rtc[WEEKDAY] = 6
    assert rtc[WEEKDAY] == 6
    rtc.step(SECOND)
    assert rtc[WEEKDAY] == 7
    rtc.step(86_400 * SECOND)
    assert rtc[WEEKDAY] == 1


def test_rtc_date_written_without_weekday_finds_the_calendars_weekday() -> None:
    rtc = Board("2023-11-14 12:00:00")
    rtc[WEEKDAY] = 6
    rtc[B] = SET | H24
    rtc[DAY] = 0x15
    rtc[B] = H24
    assert rtc[WEEKDAY] == 4


def test_rtc_time_written_keeps_the_weekday_counter() -> None:
    rtc = Board("2023-11-14 12:00:00")
    rtc[WEEKDAY] = 6
    rtc.set_time(0x01, 0x02, 0x03)
    assert rtc[WEEKDAY] == 6


def test_rtc_set_written_again_is_still_one_setting() -> None:
    rtc = Board("2023-11-14 12:00:00")
    rtc[B] = SET | H24
    rtc[WEEKDAY] = 2
    rtc[B] = SET | H24 | SQWE
    rtc[DAY] = 0x16
    rtc[B] = H24
    assert (rtc[DAY], rtc[WEEKDAY]) == (0x16, 2)


@pytest.mark.parametrize("weekday_first", [True, False])
def test_rtc_date_and_weekday_set_together_keep_both(weekday_first: bool) -> None:
    rtc = Board("2023-11-14 12:00:00")
    rtc[B] = SET | H24
    for register, value in [(WEEKDAY, 2), (DAY, 0x16)] if weekday_first else [(DAY, 0x16), (WEEKDAY, 2)]:
        rtc[register] = value
    rtc[B] = H24
    assert (rtc[DAY], rtc[WEEKDAY]) == (0x16, 2)


@pytest.mark.parametrize(
    ("register", "value", "shown"),
    [
        (SECONDS, 0x75, (0x20, 0x23, 0x11, 0x14, 0x12, 0x01, 0x15)),  # 75 s: a minute and 15
        (MINUTES, 0x0C, (0x20, 0x23, 0x11, 0x14, 0x12, 0x12, 0x00)),  # digit 12 counts for what it is
        (HOURS, 0x92, (0x20, 0x23, 0x11, 0x14, 0x12, 0x00, 0x00)),  # bit 7 means nothing in 24-hour mode
        (HOURS, 0x25, (0x20, 0x23, 0x11, 0x15, 0x01, 0x00, 0x00)),
        (DAY, 0x31, (0x20, 0x23, 0x12, 0x01, 0x12, 0x00, 0x00)),  # the 31st of November
        (DAY, 0x00, (0x20, 0x23, 0x10, 0x31, 0x12, 0x00, 0x00)),
        (MONTH, 0x13, (0x20, 0x24, 0x01, 0x14, 0x12, 0x00, 0x00)),
        (SECONDS, 0xFF, (0x20, 0x23, 0x11, 0x14, 0x11, 0x59, 0x59)),  # a don't-care counts as -1
    ],
)
def test_rtc_time_byte_out_of_range_carries_on(register: int, value: int, shown: tuple[int, ...]) -> None:
    rtc = Board("2023-11-14 12:00:00")
    rtc[register] = value
    assert tuple(rtc[r] for r in (CENTURY, YEAR, MONTH, DAY, HOURS, MINUTES, SECONDS)) == shown


# --- Update cycle, SET, divider ----------------------------------------------------------------------------


def test_rtc_uip_is_set_for_the_last_244140_ns_of_a_second() -> None:
    rtc = Board()
    rtc.step(SECOND - 244_141)
    assert rtc[A] == 0x26
    rtc.step(1)
    assert rtc[A] == 0xA6
    rtc.step(244_139)
    assert (rtc[A], rtc[SECONDS]) == (0xA6, 0x20)
    rtc.step(1)
    assert (rtc[A], rtc[SECONDS]) == (0x26, 0x21)


def test_rtc_update_ended_sets_uf_whatever_its_enable() -> None:
    rtc = Board()
    rtc[A] = 0x20  # no periodic flag in the way
    rtc.step(SECOND - 1)
    assert rtc[C] == 0
    rtc.step(1)
    assert rtc.model.take_effects() == []
    assert rtc[C] == UF
    assert rtc[C] == 0


def test_rtc_uie_raises_the_line_until_c_is_read() -> None:
    rtc = Board()
    rtc[A] = 0x20
    rtc[B] = UIE | H24
    assert rtc.model.next_deadline() == SECOND
    rtc.step(SECOND)
    assert rtc.model.take_effects() == [RAISED]
    rtc.step(5 * SECOND)
    assert rtc.model.take_effects() == []
    assert rtc[C] == IRQF | UF
    assert rtc.model.take_effects() == [LOWERED]
    assert rtc.model.next_deadline() == 7 * SECOND


def test_rtc_enable_meets_a_flag_that_is_set_already() -> None:
    rtc = Board()
    rtc.step(SECOND)
    rtc[B] = UIE | H24
    assert rtc.model.take_effects() == [RAISED]
    rtc[B] = H24
    assert rtc.model.take_effects() == [LOWERED]
    assert rtc[C] == UF | PF


def test_rtc_set_freezes_the_time_and_stops_updates() -> None:
    rtc = Board()
    rtc[A] = 0x20
    rtc.step(300_000_000)
    rtc[B] = SET | H24
    rtc.step(10 * SECOND - 300_001_000)  # 1 µs before the second would have ended
    assert rtc.time() == (0x22, 0x13, 0x20)
    assert rtc[A] == 0x20
    assert rtc[C] == 0
    rtc[B] = H24
    assert rtc.time() == (0x22, 0x13, 0x20)


def test_rtc_set_cleared_keeps_the_phase_of_the_second() -> None:
    rtc = Board()
    rtc.step(300_000_000)
    rtc.set_time(0x01, 0x02, 0x03)
    rtc.step(699_999_999)
    assert rtc.time() == (0x01, 0x02, 0x03)
    rtc.step(1)
    assert rtc.time() == (0x01, 0x02, 0x04)


def test_rtc_time_written_while_running_keeps_the_phase_of_the_second() -> None:
    rtc = Board()
    rtc.step(300_000_000)
    rtc[MINUTES] = 0x45
    rtc.step(699_999_999)
    assert rtc.time() == (0x22, 0x45, 0x20)
    rtc.step(1)
    assert rtc.time() == (0x22, 0x45, 0x21)


def test_rtc_running_write_starts_from_the_present_time() -> None:
    rtc = Board()
    rtc.step(10 * SECOND)
    rtc[HOURS] = 0x05
    assert rtc.time() == (0x05, 0x13, 0x30)


def test_rtc_set_clears_uie_and_lowers_the_line() -> None:
    rtc = Board()
    rtc[B] = UIE | H24
    rtc.step(SECOND)
    rtc.model.take_effects()
    rtc[B] = SET | UIE | H24
    assert rtc[B] == SET | H24
    assert rtc.model.take_effects() == [LOWERED]


def test_rtc_bytes_written_under_set_are_read_as_they_are() -> None:
    rtc = Board()
    rtc[B] = SET | H24
    rtc[SECONDS], rtc[MONTH], rtc[CENTURY] = 0x99, 0xFE, 0x7F
    rtc.step(SECOND)
    assert (rtc[SECONDS], rtc[MONTH], rtc[CENTURY]) == (0x99, 0xFE, 0x7F)


def test_rtc_mode_changed_as_set_is_cleared_reads_the_bytes_in_the_old_mode() -> None:
    rtc = Board()
    rtc[B] = SET | H24
    rtc[MINUTES] = 0x45
    rtc[B] = H24 | DM
    assert rtc[MINUTES] == 45


@pytest.mark.parametrize("divider", [0x60, 0x70])
def test_rtc_divider_reset_holds_time_and_first_update_comes_500_ms_after(divider: int) -> None:
    rtc = Board()
    rtc.step(123_456_789)
    rtc[A] = divider
    rtc[HOURS], rtc[MINUTES], rtc[SECONDS] = 0x02, 0x04, 0x58
    rtc[C]
    rtc.step(10 * SECOND + 17)
    assert rtc.time() == (0x02, 0x04, 0x58)
    assert (rtc[A], rtc[C]) == (divider, 0)
    rtc[A] = 0x20
    rtc.step(500_000_000 - 244_140 - 1)
    assert rtc[A] == 0x20
    rtc.step(1)
    assert rtc[A] == 0xA0
    rtc.step(244_139)
    assert rtc.time() == (0x02, 0x04, 0x58)
    rtc.step(1)
    assert rtc.time() == (0x02, 0x04, 0x59)
    assert (rtc[A], rtc[C]) == (0x20, UF)
    rtc.step(SECOND)
    assert rtc.time() == (0x02, 0x05, 0x00)


def test_rtc_divider_released_under_set_gives_the_phase_for_later() -> None:
    rtc = Board()
    rtc[B] = SET | H24
    rtc[A] = 0x70
    rtc.step(250_000_000)
    rtc[A] = 0x20
    rtc.step(100_000_000)
    rtc[B] = H24
    rtc.step(399_999_999)
    assert rtc[SECONDS] == 0x20
    rtc.step(1)
    assert rtc[SECONDS] == 0x21


@pytest.mark.parametrize("divider", [0x30, 0x40, 0x50])
def test_rtc_divider_that_is_no_time_base_stops_updates_but_resets_nothing(divider: int) -> None:
    rtc = Board()
    rtc[A] = 0x20
    rtc.step(300_000_000)
    rtc[A] = divider
    rtc.step(5 * SECOND)
    assert (rtc[SECONDS], rtc[A], rtc[C]) == (0x20, divider, 0)
    rtc[A] = 0x20
    rtc.step(700_000_000)
    assert rtc[SECONDS] == 0x21


@pytest.mark.parametrize("divider", [0x00, 0x10])
def test_rtc_other_time_bases_run_as_32768_hz(divider: int) -> None:
    rtc = Board()
    rtc[A] = divider
    rtc.step(SECOND)
    assert rtc[SECONDS] == 0x21


# --- Alarm -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dont_care", [0xC0, 0xCD, 0xFF])
@pytest.mark.parametrize("mode", [0, H24, DM, H24 | DM])
def test_rtc_alarm_dont_cares_match_every_second_minute_hour(mode: int, dont_care: int) -> None:
    rtc = Board("2023-11-14 12:58:57")
    rtc[B] = mode
    rtc.set_alarm(dont_care, dont_care, dont_care)
    assert [rtc.seconds_to_flag(AF, 5) for _ in range(2)] == [1, 1]  # 12:58:59
    rtc.set_alarm(dont_care, dont_care, 0)
    assert rtc.seconds_to_flag(AF, 90) == 1  # 12:59:00
    assert rtc.seconds_to_flag(AF, 90) == 60  # 13:00:00
    rtc.set_alarm(dont_care, 1, 2)
    assert rtc.seconds_to_flag(AF, 90) == 62  # 13:01:02
    rtc.step(3500 * SECOND)
    assert not rtc[C] & AF
    assert rtc.seconds_to_flag(AF, 101) == 100


@pytest.mark.parametrize(
    ("mode", "alarm_hour", "hour"),
    [
        (H24, 0x14, 14), (H24 | DM, 14, 14), (H24, 0x00, 0), (H24, 0x23, 23),
        (0, 0x82, 14), (0, 0x02, 2), (0, 0x12, 0), (0, 0x92, 12), (0, 0x91, 23),
        (DM, 0x82, 14), (DM, 2, 2), (DM, 12, 0), (DM, 0x8C, 12), (DM, 0x8B, 23),
    ],
)  # fmt: skip
def test_rtc_alarm_hour_matches_in_every_mode(mode: int, alarm_hour: int, hour: int) -> None:
    rtc = Board("2023-11-14 03:00:00")
    rtc[B] = mode
    rtc.set_alarm(alarm_hour, 0, 0)
    wait = (hour - 3) % 24 * 3600
    rtc.step((wait - 1) * SECOND)
    assert not rtc[C] & AF
    rtc.step(SECOND)
    assert rtc[C] & AF
    rtc.step((86_400 - 1) * SECOND)
    assert not rtc[C] & AF
    rtc.step(SECOND)
    assert rtc[C] & AF


def test_rtc_alarm_interrupt_arrives_at_its_deadline() -> None:
    rtc = Board("2023-11-14 22:13:20")
    rtc[A] = 0x20
    rtc.set_alarm(0x22, 0x14, 0x05)
    rtc[B] = AIE | H24
    rtc.step(SECOND)
    assert rtc.model.next_deadline() == 45 * SECOND
    rtc.step(44 * SECOND - 1)
    assert rtc.model.take_effects() == []
    rtc.step(1)
    assert rtc.model.take_effects() == [RAISED]
    assert rtc[C] == IRQF | AF | UF


@pytest.mark.parametrize("alarm", [(0x24, 0, 0), (0, 0x60, 0), (0, 0, 0x75), (0x82, 0, 0)])
def test_rtc_alarm_that_no_time_equals_never_matches(alarm: tuple[int, int, int]) -> None:
    rtc = Board()
    rtc.set_alarm(*alarm)
    rtc.step(200 * 366 * 86_400 * SECOND)
    assert rtc[C] == UF | PF
    rtc.step(SECOND)
    rtc[A] = 0x20
    assert rtc.model.next_deadline() is None


def test_rtc_alarm_equal_to_the_present_second_waits_a_day() -> None:
    rtc = Board("2023-11-14 22:13:20")
    rtc.set_alarm(0x22, 0x13, 0x20)
    rtc.step((86_400 - 1) * SECOND)
    assert not rtc[C] & AF
    rtc.step(SECOND)
    assert rtc[C] & AF


def test_rtc_alarm_follows_a_change_of_the_time() -> None:
    rtc = Board()
    rtc.set_alarm(0x05, 0x00, 0x00)
    rtc.set_time(0x04, 0x59, 0x59)
    rtc.step(SECOND)
    assert rtc[C] & AF


def test_rtc_alarm_does_not_match_while_set() -> None:
    rtc = Board()
    rtc.set_alarm(0xFF, 0xFF, 0xFF)
    rtc[B] = SET | H24
    rtc.step(3 * SECOND)
    assert not rtc[C] & AF


# --- Periodic --------------------------------------------------------------------------------------------

PERIOD_TICKS = {1: 128, 2: 256, 3: 4, 4: 8, 5: 16, 6: 32, 7: 64, 8: 128, 9: 256, 10: 512, 11: 1024, 12: 2048,
                13: 4096, 14: 8192, 15: 16384}  # fmt: skip


@pytest.mark.parametrize("rate", range(1, 16))
def test_rtc_periodic_flag_comes_at_the_rate_without_its_enable(rate: int) -> None:
    rtc = Board()
    rtc[A] = 0x20 | rate
    for edge in (1, 2, 3):
        due = -(-edge * PERIOD_TICKS[rate] * SECOND // 32_768)
        rtc.step(due - 1 - rtc.now)
        assert not rtc[C] & PF
        rtc.step(1)
        assert rtc[C] & PF
    assert rtc.model.take_effects() == []


@pytest.mark.parametrize("rate", range(1, 16))
def test_rtc_periodic_interrupt_comes_at_the_rate(rate: int) -> None:
    rtc = Board()
    rtc[A] = 0x20 | rate
    rtc[B] = PIE | H24
    rtc.step(SECOND - 1 - rtc.now)  # UF stays out of the deadlines below
    rtc.step(2)
    rtc[C]
    rtc.model.take_effects()
    raised = 0
    end = rtc.now + 1_000_000_000
    while (deadline := rtc.model.next_deadline()) is not None and deadline <= end:
        rtc.step(deadline - rtc.now)
        if RAISED in rtc.model.take_effects():
            raised += 1
            assert rtc[C] & (IRQF | PF) == IRQF | PF
    assert raised == 32_768 // PERIOD_TICKS[rate]


def test_rtc_periodic_rate_0_is_off() -> None:
    rtc = Board()
    rtc[A] = 0x20
    rtc[B] = PIE | H24
    rtc.step(10 * SECOND)
    assert rtc[C] == UF


def test_rtc_pie_starts_a_new_period_one_ns_late() -> None:
    rtc = Board()
    rtc.step(500_000)  # 16.384 ticks
    rtc[B] = PIE | H24
    due = (16 + 32) * SECOND // 32_768 + 1
    assert rtc.model.next_deadline() == due == 1_464_844
    rtc.step(due - 1 - rtc.now)
    assert not rtc[C] & PF
    rtc.step(1)
    assert rtc.model.take_effects() == [RAISED]
    assert rtc[C] == IRQF | PF
    assert rtc.model.next_deadline() == (16 + 64) * SECOND // 32_768 + 1


def test_rtc_pie_written_again_keeps_the_period() -> None:
    rtc = Board()
    rtc[B] = PIE | H24
    rtc.step(500_000)
    rtc[B] = PIE | UIE | H24
    assert rtc.model.next_deadline() == TICK_6_NS


def test_rtc_taps_count_from_the_divider_reset() -> None:
    rtc = Board()
    rtc[A] = 0x70
    rtc.step(100_000_000)
    rtc[A] = 0x23
    rtc.step(50_000_000)
    rtc[A] = 0x2F
    rtc[C]
    due = -(-(100_000_000 * 32_768 // SECOND + 16_384) * SECOND // 32_768)
    rtc.step(due - 1 - rtc.now)
    assert not rtc[C] & PF
    rtc.step(1)
    assert rtc[C] & PF


def test_rtc_rate_change_counts_from_the_last_edge() -> None:
    rtc = Board()
    rtc[B] = PIE | H24
    rtc.step(TICK_6_NS)
    assert rtc[C] & PF
    rtc.step(100_000)
    rtc[A] = 0x27
    assert rtc.model.next_deadline() == (32 + 64) * SECOND // 32_768 + 1


def test_rtc_rate_change_to_a_period_that_is_over_raises_at_once() -> None:
    rtc = Board()
    rtc[A] = 0x2F
    rtc[B] = PIE | H24
    rtc.step(400_000_000)
    rtc.model.take_effects()
    rtc[A] = 0x23
    assert rtc.model.take_effects() == [RAISED]
    assert rtc[C] == IRQF | PF
    tick = 400_000_000 * 32_768 // SECOND
    assert rtc.model.next_deadline() == (tick + 4) * SECOND // 32_768 + 1


def test_rtc_edge_is_not_taken_early_by_a_write_at_its_very_tick() -> None:
    rtc = Board()
    rtc[A] = 0x2F
    rtc[B] = PIE | H24
    rtc.step(500_000_000)
    rtc[SECONDS_ALARM] = 0x30
    assert rtc[C] == 0
    rtc.step(1)
    assert rtc[C] == IRQF | PF


def test_rtc_rate_change_without_pie_finds_the_taps_own_edges() -> None:
    rtc = Board()
    rtc[A] = 0x23
    rtc.step(300_000_000)
    rtc[C]
    rtc[A] = 0x2F
    rtc.step(199_999_999)
    assert not rtc[C] & PF
    rtc.step(1)
    assert rtc[C] & PF


def test_rtc_divider_reset_stops_the_periodic_tap_and_restarts_it() -> None:
    rtc = Board()
    rtc[A] = 0x7F
    rtc[B] = PIE | H24
    rtc.step(3 * SECOND)
    assert rtc[C] == 0
    rtc[A] = 0x2F
    rtc.step(500_000_000)
    assert rtc[C] == UF
    rtc.step(1)
    assert rtc[C] == IRQF | PF


def test_rtc_periodic_interrupts_go_on_while_set() -> None:
    rtc = Board()
    rtc[B] = SET | PIE | H24
    rtc.step(TICK_6_NS)
    assert rtc[C] == IRQF | PF


def test_rtc_missed_periodic_edges_are_one_interrupt() -> None:
    rtc = Board()
    rtc[B] = PIE | H24
    rtc.step(10**15)
    assert rtc.model.take_effects() == [RAISED]
    assert rtc[C] == IRQF | PF | AF | UF
    due = rtc.model.next_deadline()
    assert due is not None
    assert rtc.now < due <= rtc.now + TICK_6_NS


# --- Reset, robustness, snapshots -------------------------------------------------------------------------


def test_rtc_reset_keeps_battery_state_and_clears_enables_and_flags() -> None:
    rtc = Board()
    rtc[0x0F] = 0x77
    rtc[A] = 0x2A
    rtc.set_alarm(0x01, 0x02, 0x03)
    rtc[B] = PIE | AIE | UIE | SQWE | DM | DSE
    rtc.step(2 * SECOND)
    assert rtc.model.take_effects() == [RAISED]
    rtc.model.reset(rtc.now)
    assert rtc.model.take_effects() == [LOWERED]
    assert [rtc[r] for r in (A, B, C, D, 0x0F)] == [0x2A, DM | DSE, 0, 0x80, 0x77]
    assert rtc.time() == (0x8A, 13, 22)
    assert [rtc[r] for r in (HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM)] == [1, 2, 3]


def test_rtc_smaller_now_is_clamped() -> None:
    rtc = Board()
    rtc.step(5 * SECOND)
    rtc.now = 0
    assert rtc[SECONDS] == 0x25
    rtc.model.reset(-7)
    assert rtc[SECONDS] == 0x25


def test_rtc_huge_now_counts_as_the_last() -> None:
    rtc = Board()
    rtc.now = 1 << 200
    assert rtc[YEAR] == 0x16  # 2316: 292 years on
    assert rtc[CENTURY] == 0x23
    rtc.model.restore(rtc.model.snapshot())
    rtc.now = LAST_NOW
    assert rtc[YEAR] == 0x16


def test_rtc_wide_access_is_byte_accesses() -> None:
    rtc = Board()
    rtc.model.write(0, 0, 2, 0x5A40)  # index 0x40, data 0x5A
    assert rtc.model.read(0, 0, 2) == 0x5AFF
    assert rtc.model.read(0, 1, 4) == 0xFFFFFF5A
    assert rtc.model.read(0, 0, 8) == 0xFFFFFFFFFFFF5AFF


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(2, 1, 0xFF), (-1, 1, 0xFF), (0, 3, 0), (0, 0, 0), (0, -4, 0)]
)
def test_rtc_odd_access_gives_a_documented_value(offset: int, size: int, value: int) -> None:
    rtc = Board()
    before = rtc.model.snapshot()
    rtc.model.write(0, offset, size, 0x1234)
    assert rtc.model.snapshot() == before
    assert rtc.model.read(0, offset, size) == value


def test_rtc_has_no_host_input() -> None:
    rtc = Board()
    assert rtc.model.receive(0, b"x") == 0


def test_rtc_snapshot_restored_elsewhere_goes_on_the_same() -> None:
    rtc, other = Board(), Board("1980-01-01 00:00:00", memory=0)
    rtc[B] = UIE | PIE | DM
    rtc[0x44] = 9
    rtc.step(1_234_567_890)
    rtc.model.take_effects()
    other.model.restore(rtc.model.snapshot())
    other.now = rtc.now
    assert other.model.take_effects() == []
    assert other.model.next_deadline() == rtc.model.next_deadline()
    assert [other[r] for r in range(128)] == [rtc[r] for r in range(128)]
    assert other.model.take_effects() == rtc.model.take_effects() == [LOWERED]


def test_rtc_asks_for_no_deadline_until_an_index_is_written() -> None:
    rtc = Board()
    untouched = Board()
    untouched.model.restore(rtc.model.snapshot())
    assert rtc.model.next_deadline() is untouched.model.next_deadline() is None
    rtc.model.write(0, 0, 1, C)
    assert rtc.model.next_deadline() == SECOND


def test_rtc_with_an_enable_is_not_as_at_power_on() -> None:
    rtc = Board()
    rtc[B] = PIE | H24
    rtc.model.write(rtc.now, 0, 1, 0)
    state = bytearray(rtc.model.snapshot())
    state[7] = 8
    with pytest.raises(SnapshotError):
        rtc.model.restore(bytes(state))


# Offsets in the snapshot: magic 0, index 4, flags 5, weekday shift 6, written 7, then six 64-bit integers
# (now 8, base 16, base_ns 24, fallen back 32, chain 40, periodic 48) and 128 bytes of RAM from 56.
@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 0x00), (3, 0x02), (4, 0x80), (5, 0x80), (5, 0x01), (6, 7), (7, 9), (15, 0x80), (23, 0x7F),
        (31, 0x7F), (31, 0x80), (39, 0x7F), (47, 0x7F), (47, 0x80), (55, 0x7F), (55, 0x80),
        (56 + A, 0xA6), (56 + B, 0x92), (56 + C, 0x10), (56 + D, 0x00),
    ],
)  # fmt: skip
def test_rtc_snapshot_damaged_is_refused_without_effect(position: int, value: int) -> None:
    rtc = Board()
    rtc.step(1_500_000_000)
    good = rtc.model.snapshot()
    bad = bytearray(good)
    bad[position] = value
    rtc.step(SECOND)
    before = rtc.model.snapshot()
    with pytest.raises(SnapshotError):
        rtc.model.restore(bytes(bad))
    assert rtc.model.snapshot() == before
    rtc.model.restore(good)
    assert rtc.model.snapshot() == good


@pytest.mark.parametrize("cut", [0, 1, 183])
def test_rtc_snapshot_cut_short_is_refused(cut: int) -> None:
    rtc = Board()
    with pytest.raises(SnapshotError):
        rtc.model.restore(rtc.model.snapshot()[:cut])
