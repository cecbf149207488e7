"""The 8254's ports, latches and status, port 0x61, the interrupt line, and the model contract."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import IrqLine, SnapshotError
from kvmbox.devices.pit.input_clock import CLK_HZ
from kvmbox.devices.pit.model import Pit8254
from kvmbox.devices.pit.waveform import pulses_within, time_of_pulse

COUNTER_0, COUNTER_2, CONTROL, PORT_61 = 0, 2, 3, 4
SECOND = 1_000_000_000
RAISE, LOWER = IrqLine(0, 1), IrqLine(0, 0)


def pit_with(control: int, *count: int, now: int = 0) -> Pit8254:
    """A PIT whose counter 0 was programmed at `now`, its effects taken."""
    pit = Pit8254()
    pit.write(now, CONTROL, 1, control)
    for byte in count:
        pit.write(now, COUNTER_0, 1, byte)
    pit.take_effects()
    return pit


def read_bytes(pit: Pit8254, now: int, count: int, offset: int = COUNTER_0) -> list[int]:
    return [pit.read(now, offset, 1) for _ in range(count)]


# --- Time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pulse", [0, 1, 2, 65_536, CLK_HZ, CLK_HZ * 86_400 * 3650 + 1])
def test_time_of_pulse_is_the_first_ns_of_that_pulse(pulse: int) -> None:
    at = time_of_pulse(pulse)
    assert pulses_within(at) == pulse
    assert pulse == 0 or pulses_within(at - 1) == pulse - 1


def test_a_pulse_takes_839_ns_when_rounded_up() -> None:
    pit = pit_with(0x34, 0x00, 0x10)
    assert read_bytes(pit, 838, 2) == [0x00, 0x10]
    assert read_bytes(pit, 839, 2) == [0xFF, 0x0F]


# --- Access and flip-flops --------------------------------------------------------------------------


def test_power_on_reads_as_mode_3_counting_from_65536() -> None:
    pit = Pit8254()
    pit.write(0, CONTROL, 1, 0xEE)
    assert [pit.read(0, counter, 1) for counter in (0, 1, 2)] == [0x86, 0x86, 0x86]
    now = time_of_pulse(3)
    assert [pit.read(now, counter, 1) for counter in (0, 1, 2)] == [0xFA, 0xFA, 0x00]  # gate 2 is low
    assert pit.next_deadline() == time_of_pulse(32_768)


def test_lsb_access_writes_and_reads_the_low_byte_only() -> None:
    pit = pit_with(0x10, 0x34)
    assert read_bytes(pit, 0, 3) == [0x34, 0x34, 0x34]
    pit.write(0, CONTROL, 1, 0xC2 | 0x10)  # latch the count: one byte is all there is
    assert read_bytes(pit, time_of_pulse(1), 2) == [0x34, 0x33]


def test_msb_access_writes_and_reads_the_high_byte_only() -> None:
    pit = pit_with(0x20, 0x12)
    assert read_bytes(pit, 0, 2) == [0x12, 0x12]
    assert read_bytes(pit, time_of_pulse(1), 1) == [0x11]
    pit.write(time_of_pulse(1), CONTROL, 1, 0x00)
    assert read_bytes(pit, time_of_pulse(1000), 2) == [0x11, 0x0E]


def test_read_and_write_flip_flops_are_apart() -> None:
    pit = pit_with(0x34, 0xCD, 0xAB)
    assert read_bytes(pit, 0, 1) == [0xCD]
    pit.write(0, COUNTER_0, 1, 0x22)
    assert read_bytes(pit, 0, 1) == [0xAB]
    pit.write(0, COUNTER_0, 1, 0x11)
    at = time_of_pulse(0xABCD)
    assert read_bytes(pit, at, 2) == [0x22, 0x11]


def test_control_word_resets_the_flip_flops_and_latches() -> None:
    pit = pit_with(0x34, 0xCD, 0xAB)
    read_bytes(pit, 0, 1)
    pit.write(0, COUNTER_0, 1, 0x99)
    pit.write(0, CONTROL, 1, 0xC2)
    pit.write(0, CONTROL, 1, 0x34)
    pit.write(0, COUNTER_0, 1, 0x02)
    pit.write(0, COUNTER_0, 1, 0x01)
    assert read_bytes(pit, 0, 2) == [0x02, 0x01]


def test_msb_only_count_after_a_word_count_has_lsb_0() -> None:
    pit = pit_with(0x34, 0xCD, 0xAB)
    pit.write(0, CONTROL, 1, 0x20)
    pit.write(0, COUNTER_0, 1, 0x01)
    pit.write(0, CONTROL, 1, 0xD2)
    assert pit.next_deadline() == time_of_pulse(0x100)


# --- Latches ----------------------------------------------------------------------------------------


def test_count_latch_holds_until_read_and_a_second_one_is_ignored() -> None:
    pit = pit_with(0x34, 0x00, 0x10)
    pit.write(time_of_pulse(1), CONTROL, 1, 0x00)
    pit.write(time_of_pulse(9), CONTROL, 1, 0x00)
    late = time_of_pulse(20)
    assert read_bytes(pit, late, 4) == [0xFF, 0x0F, 0xEC, 0x0F]


def test_count_latch_does_not_disturb_the_counting() -> None:
    pit = pit_with(0x34, 0x03, 0x00)
    pit.write(time_of_pulse(1), CONTROL, 1, 0x00)
    assert pit.next_deadline() == time_of_pulse(2)


def test_count_latch_of_another_counter_leaves_this_one() -> None:
    pit = pit_with(0x34, 0x00, 0x10)
    pit.write(0, CONTROL, 1, 0x80)
    assert read_bytes(pit, time_of_pulse(1), 2) == [0xFF, 0x0F]


def test_read_back_latches_several_counters_status_before_count() -> None:
    pit = pit_with(0x34, 0x00, 0x10)
    pit.write(0, CONTROL, 1, 0xB0)
    pit.write(0, CONTROL, 1, 0xCA)  # counters 0 and 2, count and status
    late = time_of_pulse(5)
    assert read_bytes(pit, late, 3) == [0xF4, 0x00, 0x10]
    assert read_bytes(pit, late, 1, COUNTER_2) == [0x70]


def test_read_back_second_status_is_ignored_until_the_first_is_read() -> None:
    pit = pit_with(0x30, 0x02, 0x00)
    pit.write(time_of_pulse(1), CONTROL, 1, 0xE2)
    pit.write(time_of_pulse(2), CONTROL, 1, 0xE2)
    assert read_bytes(pit, time_of_pulse(2), 1) == [0x30]
    pit.write(time_of_pulse(2), CONTROL, 1, 0xE2)
    assert read_bytes(pit, time_of_pulse(2), 1) == [0xB0]


def test_read_back_of_nothing_latches_nothing() -> None:
    pit = pit_with(0x14, 0x09)
    pit.write(0, CONTROL, 1, 0xF2)
    pit.write(0, CONTROL, 1, 0xC0)
    assert read_bytes(pit, time_of_pulse(1), 1) == [0x08]


def test_null_count_from_control_word_to_the_pulse_after_the_count() -> None:
    pit = Pit8254()

    def status(now: int) -> int:
        pit.write(now, CONTROL, 1, 0xE2)
        return pit.read(now, COUNTER_0, 1)

    pit.write(100, CONTROL, 1, 0x34)
    assert status(5000) == 0xF4
    pit.write(6000, COUNTER_0, 1, 0x10)
    assert status(6500) == 0xF4
    pit.write(7000, COUNTER_0, 1, 0x00)
    assert status(7000) == 0xF4
    assert status(7001) == 0xB4


def test_control_port_read_is_0_and_changes_nothing() -> None:
    pit = pit_with(0x34, 0x34, 0x12)
    before = pit.snapshot()
    assert pit.read(0, CONTROL, 1) == 0
    assert pit.snapshot() == before


# --- Port 0x61 --------------------------------------------------------------------------------------


def test_port_61_keeps_its_low_four_bits() -> None:
    pit = Pit8254()
    assert pit.read(0, PORT_61, 1) == 0x20
    pit.write(0, PORT_61, 1, 0xFF)
    assert pit.read(0, PORT_61, 1) == 0x2F
    pit.write(0, PORT_61, 1, 0x02)
    assert pit.read(0, PORT_61, 1) == 0x22


def test_port_61_refresh_toggles_every_18_pulses() -> None:
    pit = Pit8254()
    toggles = [pit.read(time_of_pulse(18 * n), PORT_61, 1) & 0x10 for n in range(5)]
    assert toggles == [0, 0x10, 0, 0x10, 0]
    assert pit.read(time_of_pulse(18 * 5) - 1, PORT_61, 1) & 0x10 == 0


def test_port_61_shows_out_2_which_raises_no_interrupt() -> None:
    pit = Pit8254()
    pit.write(0, PORT_61, 1, 1)
    pit.write(0, CONTROL, 1, 0xB0)
    pit.write(0, COUNTER_2, 1, 0xA9)
    pit.write(0, COUNTER_2, 1, 0x04)
    assert pit.read(time_of_pulse(0x4A8), PORT_61, 1) & 0x20 == 0
    assert pit.read(time_of_pulse(0x4A9), PORT_61, 1) & 0x20 == 0x20
    assert pit.take_effects() == []


# --- The interrupt line and deadlines ---------------------------------------------------------------


def test_line_is_first_driven_by_the_first_count() -> None:
    pit = Pit8254()
    pit.write(0, CONTROL, 1, 0x36)
    pit.write(0, COUNTER_0, 1, 0x04)
    assert pit.take_effects() == []
    pit.write(0, COUNTER_0, 1, 0x00)
    assert pit.take_effects() == [RAISE]


def test_line_never_programmed_follows_out_from_its_first_change() -> None:
    pit = Pit8254()
    pit.advance(time_of_pulse(32_768) - 1)
    assert pit.take_effects() == []
    pit.advance(time_of_pulse(32_768))
    assert pit.take_effects() == [RAISE, LOWER]
    pit.advance(time_of_pulse(65_536))
    assert pit.take_effects() == [RAISE]


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (0x10, [(5, RAISE)]),
        (0x14, [(4, LOWER), (5, RAISE), (9, LOWER), (10, RAISE)]),
        (0x16, [(3, LOWER), (5, RAISE), (8, LOWER), (10, RAISE)]),
        (0x18, [(5, LOWER), (6, RAISE)]),
        (0x12, []),
        (0x1A, []),
    ],
)
def test_line_on_time_each_change_comes_at_its_own(control: int, expected: list[tuple[int, IrqLine]]) -> None:
    pit = pit_with(control, 5)
    seen: list[tuple[int, object]] = []
    while (deadline := pit.next_deadline()) is not None and len(seen) < 4:
        pit.advance(deadline - 1)
        assert pit.take_effects() == []
        pit.advance(deadline)
        seen += [(pulses_within(deadline), effect) for effect in pit.take_effects()]
    assert seen == expected


def test_line_late_by_many_cycles_gives_one_pulse_with_the_rest_coalesced() -> None:
    pit = pit_with(0x34, 0xA9, 0x04)  # 1193: 1 kHz
    pit.advance(SECOND)
    assert pit.take_effects() == [LOWER, IrqLine(0, 1, CLK_HZ // 1193 - 1)]


def test_line_late_into_the_low_half_ends_low() -> None:
    pit = pit_with(0x16, 4)
    pit.advance(time_of_pulse(4 * 7 + 3))
    assert pit.take_effects() == [LOWER, IrqLine(0, 1, 6), LOWER]


def test_line_after_146_years_has_not_drifted() -> None:
    pit = pit_with(0x34, 0x00, 0x10)
    now = 1 << 62
    pit.advance(now)
    (_, raised), phase = pit.take_effects()[:2], pulses_within(now) % 0x1000
    assert isinstance(raised, IrqLine)
    assert raised.coalesced + 1 == pulses_within(now) // 0x1000
    assert read_bytes(pit, now, 2) == [(0x1000 - phase) & 0xFF, (0x1000 - phase) >> 8]


def test_line_new_count_in_mode_2_moves_the_line_at_the_end_of_the_cycle() -> None:
    pit = pit_with(0x14, 4)
    pit.write(time_of_pulse(1), COUNTER_0, 1, 3)
    pit.advance(time_of_pulse(4 + 3 * 5))
    assert pit.take_effects() == [LOWER, IrqLine(0, 1, 5)]


def test_line_control_word_changes_it_at_once() -> None:
    pit = pit_with(0x14, 4)
    pit.write(0, CONTROL, 1, 0x10)
    assert pit.take_effects() == [LOWER]
    assert pit.next_deadline() is None
    pit.write(0, CONTROL, 1, 0x14)
    assert pit.take_effects() == [RAISE]


def test_line_illegal_count_1_asks_for_no_deadline_until_it_is_replaced() -> None:
    pit = pit_with(0x14, 1)
    assert pit.next_deadline() is None
    pit.write(0, COUNTER_0, 1, 2)
    assert pit.next_deadline() == time_of_pulse(1)
    pit.advance(time_of_pulse(1))
    assert pit.next_deadline() == time_of_pulse(2)
    assert pit.take_effects() == []
    pit.advance(time_of_pulse(2))
    assert pit.take_effects() == [LOWER]
    pit.advance(time_of_pulse(3))
    assert pit.take_effects() == [RAISE]


# --- The contract -----------------------------------------------------------------------------------


def test_now_smaller_than_before_is_clamped() -> None:
    pit = pit_with(0x14, 100)
    pit.advance(time_of_pulse(50))
    assert pit.read(0, COUNTER_0, 1) == 50
    pit.write(0, COUNTER_0, 1, 7)
    assert pit.next_deadline() == time_of_pulse(99)


@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, (1 << 64) - 1)])
def test_unknown_offset_reads_all_ones_and_drops_writes(size: int, ones: int) -> None:
    pit = Pit8254()
    before = pit.snapshot()
    for offset in (-1, 5, 1 << 40):
        pit.write(0, offset, size, 0x36)
        assert pit.read(0, offset, size) == ones
    assert pit.snapshot() == before


def test_wide_access_reaches_the_register_with_its_low_byte() -> None:
    pit = pit_with(0x14)
    pit.write(0, COUNTER_0, 4, 0xAABBCC55)
    assert pit.read(0, COUNTER_0, 2) == 0xFF55


def test_reset_lowers_the_line_and_returns_to_power_on() -> None:
    pit = pit_with(0x14, 9)
    pit.write(0, PORT_61, 1, 0x0F)
    pit.reset(5000)
    assert pit.take_effects() == [LOWER]
    fresh = Pit8254()
    fresh.reset(5000)
    assert pit.snapshot() == fresh.snapshot()
    assert pit.next_deadline() == 5000 + time_of_pulse(32_768)


def test_restore_rejects_other_lengths_and_versions() -> None:
    pit = pit_with(0x34, 1, 2)
    state = pit.snapshot()
    for damaged in (b"", state[:-1], state + b"\0", b"\xff" + state[1:]):
        with pytest.raises(SnapshotError):
            pit.restore(damaged)
        assert pit.snapshot() == state


def test_restore_keeps_the_level_of_the_line() -> None:
    pit = pit_with(0x16, 4)
    copy = Pit8254()
    copy.restore(pit.snapshot())
    copy.advance(time_of_pulse(2))
    assert copy.take_effects() == [LOWER]
