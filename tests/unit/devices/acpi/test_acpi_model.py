"""ACPI power management: PM1a status, enable and control, the PM timer to the tick, sleep and wake-up."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.contract.model import WAKE_BY_RTC, Effect, IrqLine, SnapshotError, Stop, Suspend
from kvmbox.contract.stop_values import PM1_CNT, PM1_STS, SLP_EN
from kvmbox.devices.acpi.model import PM1_EN, PM_TMR, PWRBTN, RTC, SCI_EN, TIMER_HZ, TMR, WAK_STS, AcpiPm

SECOND: Final = 1_000_000_000
HALF: Final = 1 << 23
"""Ticks between two changes of bit 23."""


def time_of(tick: int) -> int:
    """The first nanosecond at which the timer has counted so far."""
    return -(-tick * SECOND // TIMER_HZ)


def sts(pm: AcpiPm, now: int) -> int:
    return pm.read(now, PM1_STS, 2)


@pytest.mark.parametrize("tick", [1, 2, 1000, HALF - 1, HALF, 2 * HALF - 1, 3 * HALF, 1 << 40])
def test_timer_counts_each_tick_at_its_nanosecond(tick: int) -> None:
    pm = AcpiPm()
    assert pm.read(time_of(tick) - 1, PM_TMR, 4) == tick - 1 & 0xFF_FFFF
    assert pm.read(time_of(tick), PM_TMR, 4) == tick & 0xFF_FFFF


def test_timer_has_24_bits_and_is_read_only() -> None:
    pm = AcpiPm()
    pm.write(0, PM_TMR, 4, 0x1234)
    assert pm.read(0, PM_TMR, 4) == 0
    last = time_of(1 << 24)
    assert pm.read(last - 1, PM_TMR, 4) == 0xFF_FFFF
    assert pm.read(last, PM_TMR, 4) == 0


def test_timer_goes_on_through_a_reset() -> None:
    pm = AcpiPm()
    pm.reset(SECOND)
    assert pm.read(SECOND, PM_TMR, 4) == TIMER_HZ


@pytest.mark.parametrize("carry", [1, 2, 3, 1000])
def test_tmr_sts_is_set_whenever_bit_23_changes(carry: int) -> None:
    pm = AcpiPm()
    before = time_of(carry * HALF) - 1
    pm.write(before, PM1_STS, 2, TMR)
    assert sts(pm, before) == 0
    assert sts(pm, before + 1) == TMR


def test_tmr_sts_is_cleared_by_a_one_until_the_next_carry_and_not_by_a_zero() -> None:
    pm = AcpiPm()
    now = time_of(HALF)
    pm.write(now, PM1_STS, 2, 0xFFFF & ~TMR)
    assert sts(pm, now) == TMR
    pm.write(now, PM1_STS, 2, TMR)
    assert sts(pm, time_of(2 * HALF) - 1) == 0
    assert sts(pm, time_of(2 * HALF)) == TMR


def test_sci_rises_at_the_carry_and_falls_when_the_status_is_cleared() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_EN, 2, TMR)
    assert pm.next_deadline() == time_of(HALF)
    pm.advance(time_of(HALF) - 1)
    assert pm.take_effects() == []
    pm.advance(time_of(HALF))
    assert pm.take_effects() == [IrqLine(0, 1)]
    assert pm.next_deadline() is None  # it can rise no further
    pm.write(time_of(HALF), PM1_STS, 2, TMR)
    assert pm.take_effects() == [IrqLine(0, 0)]
    assert pm.next_deadline() == time_of(2 * HALF)


def test_sci_follows_the_enable_of_a_status_that_is_set() -> None:
    pm = AcpiPm()
    now = time_of(HALF)
    pm.advance(now)
    assert pm.next_deadline() is None
    for enable, effects in ((RTC, []), (TMR | RTC, [IrqLine(0, 1)]), (0, [IrqLine(0, 0)])):
        pm.write(now, PM1_EN, 2, enable)
        assert pm.take_effects() == effects


def test_a_century_is_one_carry_like_any_other() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_EN, 2, TMR)
    century = 100 * 365 * 86_400 * SECOND
    pm.advance(century)
    assert pm.take_effects() == [IrqLine(0, 1)]
    pm.write(century, PM1_STS, 2, TMR)
    carries = century * TIMER_HZ // SECOND // HALF
    assert pm.next_deadline() == time_of((carries + 1) * HALF)


def test_registers_are_bytes_words_and_a_double_word() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_STS, 4, (TMR | PWRBTN) << 16)
    assert pm.read(0, PM1_STS, 4) == (TMR | PWRBTN) << 16
    assert [pm.read(0, PM1_EN + byte, 1) for byte in (0, 1)] == [TMR, PWRBTN >> 8]
    pm.write(0, PM1_EN + 1, 1, RTC >> 8)
    assert pm.read(0, PM1_EN, 2) == TMR | RTC
    assert pm.read(0, PM1_CNT + 2, 2) == 0xFFFF


def test_reserved_enables_and_write_only_controls_read_as_zero() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_EN, 2, 0xFFFF)
    assert pm.read(0, PM1_EN, 2) == 0x0721
    assert pm.read(0, PM1_CNT, 2) == SCI_EN
    pm.write(0, PM1_CNT, 2, 0xFFFF & ~SLP_EN)
    assert pm.read(0, PM1_CNT, 2) == 0x1C03  # SLP_TYP, BM_RLD and SCI_EN, which cannot be cleared
    pm.write(0, PM1_CNT, 2, 0)
    assert pm.read(0, PM1_CNT, 2) == SCI_EN


@pytest.mark.parametrize(
    ("offset", "size", "value", "effects"),
    [
        (PM1_CNT, 2, 0x2000, [Stop()]),
        (PM1_CNT, 2, 0x2001, [Stop()]),
        (PM1_CNT, 4, 0x2000, [Stop()]),
        (PM1_CNT + 1, 1, 0x20, [Stop()]),
        (PM1_CNT, 2, 0x2400, [Suspend(0)]),
        (PM1_CNT + 1, 1, 0x24, [Suspend(0)]),
        (PM1_CNT, 2, 0x0400, []),
        (PM1_CNT, 2, 0x2800, []),  # S4 and other types are none of this machine's
        (PM1_CNT, 2, 0x3C00, []),
        (PM1_CNT, 1, 0x20, []),
        (PM1_STS, 1, 0x34, [Stop()]),  # Cloud Hypervisor's
        (PM1_STS, 2, 0x34, []),
        (PM1_STS, 4, 0x34, []),
        (PM1_STS, 1, 0x35, []),
        (PM1_STS + 1, 1, 0x34, []),
        (PM1_EN, 1, 0x34, []),
    ],
)
def test_sleep_takes_slp_en_and_a_type(offset: int, size: int, value: int, effects: list[Effect]) -> None:
    pm = AcpiPm()
    pm.write(0, offset, size, value)
    assert pm.take_effects() == effects


def test_sleep_type_of_an_earlier_write_does_not_count() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_CNT, 2, 0x0400)
    pm.write(0, PM1_CNT, 2, 0x2000)
    assert pm.take_effects() == [Stop()]


def test_suspend_says_whether_the_clock_may_wake_the_machine() -> None:
    pm = AcpiPm()
    for enable, wakes in ((RTC, WAKE_BY_RTC), (0x0721 & ~RTC, 0)):
        pm.write(0, PM1_EN, 2, enable)
        pm.write(0, PM1_CNT, 2, 0x2400)
        assert pm.take_effects() == [Suspend(wakes)]


def test_wake_up_is_told_in_the_status_after_the_reset() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_EN, 2, RTC)
    pm.write(0, PM1_CNT, 2, 0x2400)
    pm.take_effects()
    pm.reset(SECOND)
    assert pm.receive(SECOND, bytes((WAKE_BY_RTC,))) == 1
    assert sts(pm, SECOND) == WAK_STS | RTC
    assert pm.read(SECOND, PM1_EN, 2) == 0
    assert pm.take_effects() == []  # nothing is enabled
    pm.write(SECOND, PM1_STS, 2, WAK_STS)
    pm.write(SECOND, PM1_EN, 2, RTC)
    assert pm.take_effects() == [IrqLine(0, 1)]


def test_reset_clears_all_but_the_timer_and_lowers_the_line() -> None:
    pm = AcpiPm()
    pm.write(0, PM1_EN, 2, TMR)
    pm.write(0, PM1_CNT, 2, 0x0400)
    now = time_of(HALF)
    pm.advance(now)
    pm.take_effects()
    pm.reset(now)
    assert pm.take_effects() == [IrqLine(0, 0)]
    assert pm.read(now, PM1_STS, 4) == 0
    assert pm.read(now, PM1_CNT, 2) == SCI_EN


def test_restored_model_raises_the_same_line_at_the_same_time() -> None:
    first, second = AcpiPm(), AcpiPm()
    first.write(SECOND, PM1_EN, 2, TMR)
    second.restore(first.snapshot())
    for pm in (first, second):
        assert pm.next_deadline() == time_of(HALF)
        pm.advance(time_of(HALF))
        assert pm.take_effects() == [IrqLine(0, 1)]
    second.restore(first.snapshot())
    second.write(time_of(HALF), PM1_STS, 2, TMR)
    assert second.take_effects() == [IrqLine(0, 0)]


@pytest.mark.parametrize(("place", "byte"), [(3, 2), (12, 1), (20, 2), (22, 2), (24, 1), (11, 0x80)])
def test_snapshot_of_a_state_that_cannot_be_is_refused(place: int, byte: int) -> None:
    state = bytearray(AcpiPm().snapshot())
    state[place] = byte
    with pytest.raises(SnapshotError):
        AcpiPm().restore(bytes(state))
