"""Time that passes while guest time stands still: what a machine from a snapshot may be told."""

from __future__ import annotations

import pytest

from kvmbox.devices.rtc.model import RtcMc146818
from tests.unit.devices.rtc.test_rtc_model import AIE, SECOND, SET, A, B, Board, C

HOUR = 3600


def away(rtc: Board, seconds: int) -> int:
    return rtc.model.receive(rtc.now, seconds.to_bytes(8, "little"))


def test_clock_moves_on_by_the_seconds_and_keeps_its_phase() -> None:
    rtc = Board()
    rtc.step(SECOND // 3)
    hours, minutes, seconds = rtc.time()
    before = rtc.model.next_deadline()
    assert away(rtc, 2 * HOUR + 60) == 8
    assert rtc.time() == (hours, minutes + 1, seconds) or rtc.time()[1:] == (minutes + 1, seconds)
    assert rtc.model.next_deadline() == before
    assert rtc.model.take_effects() == []


def test_alarm_that_was_missed_is_not_raised_and_the_next_one_is() -> None:
    rtc = Board()
    rtc[B] = rtc[B] | AIE
    rtc.set_alarm(0x22, 0x14, 0x00)  # forty seconds from now
    away(rtc, 60)
    rtc.step(60 * SECOND)
    assert rtc[C] & 0x20 == 0
    away(rtc, 24 * HOUR - 120 - 10)
    rtc.step(60 * SECOND)
    assert rtc[C] & 0x20


def test_stopped_clock_and_other_input_are_left_alone() -> None:
    rtc = Board()
    assert rtc.model.receive(rtc.now, b"1234567") == 0
    assert rtc.model.receive(rtc.now, b"123456789") == 0
    assert rtc.model.receive(rtc.now, b"") == 0
    before = rtc.time()
    rtc[B] = rtc[B] | SET
    assert away(rtc, HOUR) == 0
    rtc[B] = rtc[B] & ~SET
    assert rtc.time() == before


@pytest.mark.parametrize("seconds", [0, 1, (1 << 63) - 1, (1 << 64) - 1])
def test_state_afterwards_is_one_that_can_be_restored(seconds: int) -> None:
    rtc = Board()
    rtc[A] = 0x26
    away(rtc, seconds)
    other = RtcMc146818(base_seconds=0, memory_bytes=1 << 27)
    other.restore(rtc.model.snapshot())
    assert other.snapshot() == rtc.model.snapshot()
