"""The HPET after IA-PC HPET 1.0a: counter, comparators, and where interrupts go, each to the tick."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.contract.model import Effect, IrqLine, SnapshotError, TakeLine
from kvmbox.devices.hpet.model import (
    CAPABILITIES,
    ENABLE_CNF,
    GCAP_ID,
    GEN_CONF,
    GINTR_STA,
    INT_ENB_CNF,
    INT_ROUTE_SHIFT,
    INT_TYPE_CNF,
    LEG_RT_CNF,
    MAIN_CNT,
    MODE32_CNF,
    TIM_COMP,
    TIM_CONF,
    TIMER_STRIDE,
    TIMERS,
    TYPE_CNF,
    VAL_SET_CNF,
    Hpet,
)

TICK: Final = 10
SECOND: Final = 1_000_000_000
LEVEL: Final = INT_TYPE_CNF | INT_ENB_CNF
EDGE: Final = INT_ENB_CNF
CENTURY: Final = 100 * 365 * 86_400 * SECOND


def conf(timer: int) -> int:
    return TIMERS + TIMER_STRIDE * timer + TIM_CONF


def comp(timer: int) -> int:
    return TIMERS + TIMER_STRIDE * timer + TIM_COMP


def route(line: int) -> int:
    return line << INT_ROUTE_SHIFT


def pin(line: int) -> int:
    """The model's output pin of an I/O APIC line."""
    return 2 + line - 16


def pulse(line_pin: int, coalesced: int = 0) -> list[Effect]:
    return [IrqLine(line_pin, 1, coalesced), IrqLine(line_pin, 0)]


def one_shot(timer: int, bits: int, at: int, line: int = 16) -> Hpet:
    """An HPET at time 0 whose counter runs, and one timer that matches at tick `at`."""
    hpet = Hpet()
    hpet.write(0, conf(timer), 8, bits | route(line))
    hpet.write(0, comp(timer), 8, at)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    assert hpet.take_effects() == []
    return hpet


def periodic(timer: int, bits: int, first: int, period: int, line: int = 16) -> Hpet:
    """The same with a timer that matches at `first`, and from there each `period`, as 2.3.9.2.2 sets it."""
    hpet = Hpet()
    hpet.write(0, conf(timer), 8, bits | TYPE_CNF | VAL_SET_CNF | route(line))
    hpet.write(0, comp(timer), 8, first)
    hpet.write(0, comp(timer), 8, period)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    assert hpet.take_effects() == []
    return hpet


# --- Capabilities and the counter -------------------------------------------------------------------------


def test_capabilities_tell_three_timers_of_64_bits_and_a_period_of_10_ns() -> None:
    hpet = Hpet()
    value = hpet.read(0, GCAP_ID, 8)
    assert value == CAPABILITIES
    assert value >> 32 == 10_000_000  # fs; at most 100 ns (2.3.4)
    assert value & 0xFFFF_FFFF == 0x8086_A201
    hpet.write(0, GCAP_ID, 8, 0)
    assert hpet.read(0, GCAP_ID, 8) == value


@pytest.mark.parametrize("timer", [0, 1, 2])
def test_timer_capabilities_are_periodic_64_bits_and_routes_without_messages(timer: int) -> None:
    hpet = Hpet()
    hpet.write(0, conf(timer), 8, (1 << 64) - 1)
    value = hpet.read(0, conf(timer), 8)
    assert value >> 32 == 0x00FF_0000
    assert value & 0xC031 == 0x30  # no FSB delivery and none enabled; reserved bit 0; periodic and 64 bits
    assert hpet.read(0, conf(timer) + 0x10, 8) == 0


def test_counter_stands_until_it_is_enabled_and_counts_whole_ticks() -> None:
    hpet = Hpet()
    assert hpet.read(SECOND, MAIN_CNT, 8) == 0
    hpet.write(SECOND + 7, GEN_CONF, 4, ENABLE_CNF)
    assert hpet.read(SECOND + 16, MAIN_CNT, 8) == 0
    assert hpet.read(SECOND + 17, MAIN_CNT, 8) == 1
    assert hpet.read(2 * SECOND + 7, MAIN_CNT, 8) == 100_000_000
    hpet.write(2 * SECOND + 7, GEN_CONF, 4, 0)
    assert hpet.read(3 * SECOND, MAIN_CNT, 8) == 100_000_000


def test_counter_is_written_in_halves_while_it_stands_and_not_while_it_runs() -> None:
    hpet = Hpet()
    hpet.write(0, MAIN_CNT, 4, 0xFFFF_FFFE)
    hpet.write(0, MAIN_CNT + 4, 4, 0x1234_5678)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    hpet.write(0, MAIN_CNT, 8, 0)
    assert hpet.read(2 * TICK, MAIN_CNT, 8) == 0x1234_5679_0000_0000
    assert hpet.read(3 * TICK, MAIN_CNT, 4) == 1
    assert hpet.read(3 * TICK, MAIN_CNT + 4, 4) == 0x1234_5679


def test_counter_wraps_at_64_bits() -> None:
    hpet = Hpet()
    hpet.write(0, MAIN_CNT, 8, (1 << 64) - 2)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    assert [hpet.read(tick * TICK, MAIN_CNT, 8) for tick in range(4)] == [(1 << 64) - 2, (1 << 64) - 1, 0, 1]


def test_reads_by_several_processors_never_go_back() -> None:
    hpet = Hpet()
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    assert hpet.read(1000, MAIN_CNT, 8) == 100
    assert hpet.read(500, MAIN_CNT, 8) == 100  # stamped before, arrived after


@pytest.mark.parametrize(
    ("offset", "size", "value"), [(GEN_CONF, 1, 1), (GEN_CONF, 2, 1), (GEN_CONF + 1, 4, 1)]
)
def test_accesses_that_the_specification_does_not_know_change_nothing(
    offset: int, size: int, value: int
) -> None:
    hpet = Hpet()
    hpet.write(0, offset, size, value)
    assert hpet.read(0, GEN_CONF, 8) == 0
    assert hpet.read(0, 1, 2) == 0x86A2  # what is read is what is there
    assert hpet.read(0, 0x200, 4) == 0


# --- One-shot ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timer", [0, 1, 2])
@pytest.mark.parametrize("line", [16, 23])
def test_edge_triggered_match_is_a_pulse_at_its_tick(timer: int, line: int) -> None:
    hpet = one_shot(timer, EDGE, 100, line)
    assert hpet.next_deadline() == 100 * TICK
    hpet.advance(100 * TICK - 1)
    assert hpet.take_effects() == []
    hpet.advance(100 * TICK)
    assert hpet.take_effects() == pulse(pin(line))
    assert hpet.read(100 * TICK, GINTR_STA, 8) == 0
    assert hpet.next_deadline() is None
    hpet.advance(CENTURY)
    assert hpet.take_effects() == []


def test_level_triggered_match_holds_the_line_until_its_status_is_cleared() -> None:
    hpet = one_shot(1, LEVEL, 100, 20)
    hpet.advance(100 * TICK)
    assert hpet.take_effects() == [IrqLine(pin(20), 1)]
    assert hpet.read(SECOND, GINTR_STA, 8) == 2
    hpet.write(SECOND, GINTR_STA, 8, 1 | 4)
    assert hpet.take_effects() == []
    hpet.write(SECOND, GINTR_STA, 8, 2)
    assert hpet.take_effects() == [IrqLine(pin(20), 0)]
    assert hpet.read(SECOND, GINTR_STA, 8) == 0


def test_status_is_set_without_the_interrupt_and_the_line_follows_the_enable() -> None:
    hpet = one_shot(0, INT_TYPE_CNF, 100)
    assert hpet.next_deadline() is None
    assert hpet.read(SECOND, GINTR_STA, 8) == 1
    assert hpet.take_effects() == []
    hpet.write(SECOND, conf(0), 8, LEVEL | route(16))
    assert hpet.take_effects() == [IrqLine(pin(16), 1)]
    hpet.write(SECOND, GEN_CONF, 8, 0)  # halted: no timer interrupts
    assert hpet.take_effects() == [IrqLine(pin(16), 0)]


def test_one_shot_of_32_bits_matches_again_when_the_low_half_comes_round() -> None:
    hpet = one_shot(0, EDGE | MODE32_CNF, 100)
    hpet.advance(100 * TICK)
    hpet.take_effects()
    again = (100 + (1 << 32)) * TICK
    assert hpet.next_deadline() == again
    hpet.advance(again + (2 << 32) * TICK)
    assert hpet.take_effects() == pulse(pin(16), coalesced=2)
    assert hpet.read(again, comp(0), 8) == 100


def test_comparator_of_32_bits_has_no_upper_half() -> None:
    hpet = Hpet()
    hpet.write(0, comp(0), 8, 0x1234_5678_9ABC_DEF0)
    hpet.write(0, conf(0), 8, MODE32_CNF)
    assert hpet.read(0, comp(0), 8) == 0x9ABC_DEF0
    hpet.write(0, comp(0) + 4, 4, 1)
    hpet.write(0, comp(0), 4, 7)
    assert hpet.read(0, comp(0), 8) == 7


def test_comparator_that_the_counter_has_passed_does_not_match() -> None:
    hpet = Hpet()
    hpet.write(0, conf(0), 8, EDGE | route(16))
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    hpet.write(SECOND, comp(0), 8, 99_999_999)
    assert hpet.next_deadline() is None
    hpet.advance(CENTURY)
    assert hpet.take_effects() == []


def test_match_of_a_later_half_of_a_comparator_counts_from_the_write() -> None:
    hpet = Hpet()
    hpet.write(0, conf(0), 4, EDGE | route(16))
    hpet.write(0, comp(0), 4, 50)
    hpet.write(0, comp(0) + 4, 4, 0)
    hpet.write(0, GEN_CONF, 4, ENABLE_CNF)
    assert hpet.next_deadline() == 50 * TICK


# --- Periodic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, MODE32_CNF])
def test_periodic_timer_matches_first_at_its_comparator_then_each_period(mode: int) -> None:
    hpet = periodic(0, EDGE | mode, first=1000, period=100)
    for match in (1000, 1100, 1200):
        assert hpet.next_deadline() == match * TICK
        assert hpet.read(match * TICK - 1, comp(0), 8) == match
        assert hpet.take_effects() == []
        hpet.advance(match * TICK)
        assert hpet.take_effects() == pulse(pin(16))
    assert hpet.read(1200 * TICK, comp(0), 8) == 1300


def test_periodic_matches_of_a_late_host_are_one_pulse_that_counts_them() -> None:
    hpet = periodic(0, EDGE, first=1000, period=100)
    hpet.advance(5000 * TICK + 9)
    assert hpet.take_effects() == pulse(pin(16), coalesced=40)
    assert hpet.next_deadline() == 5100 * TICK


def test_periodic_century_costs_one_step() -> None:
    hpet = periodic(0, EDGE, first=1, period=1)
    hpet.advance(CENTURY)
    assert hpet.take_effects() == pulse(pin(16), coalesced=CENTURY // TICK - 1)


def test_periodic_comparator_wraps_with_its_mode() -> None:
    hpet = periodic(0, EDGE | MODE32_CNF, first=0xFFFF_FFF0, period=0x20)
    hpet.advance(0xFFFF_FFF0 * TICK)
    assert hpet.read(0xFFFF_FFF0 * TICK, comp(0), 8) == 0x10
    assert hpet.next_deadline() == 0x1_0000_0010 * TICK


def test_val_set_clears_itself_and_without_it_only_the_period_is_written() -> None:
    hpet = Hpet()
    hpet.write(0, conf(0), 8, TYPE_CNF | VAL_SET_CNF)
    assert hpet.read(0, conf(0), 4) & VAL_SET_CNF
    hpet.write(0, comp(0), 8, 1000)
    assert not hpet.read(0, conf(0), 4) & VAL_SET_CNF
    hpet.write(0, comp(0), 8, 7)
    assert hpet.read(0, comp(0), 8) == 1000


def test_val_set_has_no_meaning_for_a_one_shot() -> None:
    hpet = Hpet()
    hpet.write(0, conf(0), 8, VAL_SET_CNF)
    assert not hpet.read(0, conf(0), 4) & VAL_SET_CNF


def test_level_triggered_periodic_timer_raises_its_line_once_for_each_clearing() -> None:
    hpet = periodic(0, LEVEL, first=100, period=100)
    hpet.advance(1050 * TICK)
    assert hpet.take_effects() == [IrqLine(pin(16), 1)]
    assert hpet.next_deadline() is None
    hpet.write(1050 * TICK, GINTR_STA, 8, 1)
    assert hpet.take_effects() == [IrqLine(pin(16), 0)]
    assert hpet.next_deadline() == 1100 * TICK


# --- Lines that are shared, and legacy replacement ---------------------------------------------------------


def test_pulses_on_a_line_that_another_timer_holds_are_no_edges() -> None:
    hpet = periodic(0, EDGE, first=100, period=100)
    hpet.write(0, conf(1), 8, LEVEL | route(16))
    hpet.write(0, comp(1), 8, 450)
    hpet.advance(2000 * TICK)  # edges at 100 to 400, then held from 450 on
    assert hpet.take_effects() == [*pulse(pin(16), coalesced=3), IrqLine(pin(16), 1)]


def test_pulses_on_a_line_that_has_been_held_for_long_are_no_edges_either() -> None:
    hpet = one_shot(1, LEVEL, 50)
    hpet.advance(50 * TICK)
    hpet.take_effects()
    hpet.write(50 * TICK, conf(0), 8, EDGE | route(16))
    hpet.write(50 * TICK, comp(0), 8, 100)
    hpet.advance(SECOND)
    assert hpet.take_effects() == []


def test_level_line_is_high_while_any_of_its_timers_holds_it() -> None:
    hpet = one_shot(0, LEVEL, 100)
    hpet.write(0, conf(2), 8, LEVEL | route(16))
    hpet.write(0, comp(2), 8, 100)
    hpet.advance(100 * TICK)
    assert hpet.take_effects() == [IrqLine(pin(16), 1)]
    hpet.write(SECOND, GINTR_STA, 8, 1)
    assert hpet.take_effects() == []
    hpet.write(SECOND, GINTR_STA, 8, 4)
    assert hpet.take_effects() == [IrqLine(pin(16), 0)]


@pytest.mark.parametrize("line", [0, 2, 8, 15, 24, 31])
def test_route_that_there_is_not_reads_back_as_another_and_interrupts_nobody(line: int) -> None:
    hpet = Hpet()
    hpet.write(0, conf(0), 8, EDGE | route(16))
    hpet.write(0, conf(0), 8, EDGE | route(line))
    assert hpet.read(0, conf(0), 4) & route(0x1F) == 0
    hpet.write(0, comp(0), 8, 100)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF)
    assert hpet.next_deadline() is None
    hpet.advance(SECOND)
    assert hpet.take_effects() == []


@pytest.mark.parametrize("bits", [0, ENABLE_CNF, LEG_RT_CNF])
def test_legacy_replacement_takes_both_bits(bits: int) -> None:
    hpet = Hpet()
    hpet.write(0, GEN_CONF, 8, bits)
    assert hpet.take_effects() == []
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF)
    assert hpet.take_effects() == [TakeLine(0, 1), TakeLine(1, 1)]
    hpet.write(0, GEN_CONF, 8, bits)
    assert hpet.take_effects() == [TakeLine(0, 0), TakeLine(1, 0)]


@pytest.mark.parametrize(("timer", "legacy_pin"), [(0, 0), (1, 1), (2, pin(19))])
def test_legacy_replacement_moves_timers_0_and_1_to_irq_0_and_8(timer: int, legacy_pin: int) -> None:
    hpet = one_shot(timer, EDGE, 100, line=19)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF)
    hpet.take_effects()
    hpet.advance(100 * TICK)
    assert hpet.take_effects() == pulse(legacy_pin)


def test_line_is_low_when_it_is_taken_and_when_it_is_given_back() -> None:
    hpet = one_shot(0, LEVEL, 100)
    hpet.advance(100 * TICK)
    hpet.take_effects()
    hpet.write(SECOND, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF)
    low, high = IrqLine(pin(16), 0), IrqLine(0, 1)
    assert hpet.take_effects() == [low, TakeLine(0, 1), TakeLine(1, 1), high]
    hpet.write(SECOND, GEN_CONF, 8, ENABLE_CNF)
    low, high = IrqLine(0, 0), IrqLine(pin(16), 1)
    assert hpet.take_effects() == [low, TakeLine(0, 0), TakeLine(1, 0), high]


def test_reset_gives_the_lines_back_and_stops_the_counter() -> None:
    hpet = one_shot(0, LEVEL, 100)
    hpet.write(0, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF)
    hpet.advance(100 * TICK)
    hpet.take_effects()
    hpet.reset(SECOND)
    assert hpet.take_effects() == [IrqLine(0, 0), TakeLine(0, 0), TakeLine(1, 0)]
    assert [hpet.read(2 * SECOND, offset, 8) for offset in (GEN_CONF, GINTR_STA, MAIN_CNT)] == [0, 0, 0]
    assert hpet.read(SECOND, comp(0), 8) == (1 << 64) - 1
    assert hpet.next_deadline() is None


# --- Snapshots ---------------------------------------------------------------------------------------------


def test_restored_model_goes_on_where_the_first_one_was() -> None:
    first, second = periodic(0, EDGE, first=1000, period=100), Hpet()
    first.write(0, GEN_CONF, 8, ENABLE_CNF | LEG_RT_CNF)
    first.advance(1050 * TICK)
    first.take_effects()
    second.restore(first.snapshot())
    for hpet in (first, second):
        hpet.advance(1100 * TICK)
        assert hpet.take_effects() == pulse(0)
        hpet.reset(1100 * TICK)
        assert hpet.take_effects() == [TakeLine(0, 0), TakeLine(1, 0)]
    assert first.snapshot() == second.snapshot()


def test_snapshot_that_has_missed_a_match_is_refused() -> None:
    hpet = one_shot(0, EDGE, 100)
    hpet.advance(99 * TICK)
    state = bytearray(hpet.snapshot())
    state[4:12] = (100 * TICK).to_bytes(8, "little")
    with pytest.raises(SnapshotError, match="missed"):
        Hpet().restore(bytes(state))
