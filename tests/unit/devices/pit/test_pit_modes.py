"""The six modes as the 8254 datasheet's timing diagrams show them (figures "Mode 0" to "Mode 5").

Counter 2 is used where a gate matters, since its gate and OUT are in port 0x61. After `clk(n)` a pulse count
as in the diagrams has passed: pulse 0 loads CE, so that the diagram's first number is read at `clk(0)`.
"""

from __future__ import annotations

import pytest

from kvmbox.devices.pit.model import CONTROL_WORD, SYSTEM_CONTROL_B, Pit8254
from kvmbox.devices.pit.waveform import time_of_pulse

LSB, WORD = 0x10, 0x30
GATE = 0x01


class Bench:
    """Counter 2 of a PIT, driven pulse by pulse."""

    def __init__(self, gate: int = GATE) -> None:
        self.pit = Pit8254()
        self.start = 0  # where pulses are counted from: the last load or trigger
        self.now = 0
        self.gate(gate)

    def write(self, *count: int) -> None:
        self.start = self.now
        for byte in count:
            self.pit.write(self.now, 2, 1, byte)

    def program(self, mode: int, *count: int, access: int = LSB, bcd: int = 0) -> None:
        self.pit.write(self.now, CONTROL_WORD, 1, 0x80 | access | mode << 1 | bcd)
        self.write(*count)

    def gate(self, level: int) -> None:
        self.start = self.now
        self.pit.write(self.now, SYSTEM_CONTROL_B, 1, level)

    def trigger(self) -> None:
        self.gate(0)
        self.gate(1)

    def clk(self, pulses: int) -> None:
        """The time at which `pulses` pulses have followed the last load, trigger or gate."""
        self.now = self.start + time_of_pulse(pulses)

    def out(self) -> int:
        return self.pit.read(self.now, SYSTEM_CONTROL_B, 1) >> 5 & 1

    def ce(self) -> int:
        self.pit.write(self.now, CONTROL_WORD, 1, 0xD8)
        low = self.pit.read(self.now, 2, 1)
        self.pit.write(self.now, CONTROL_WORD, 1, 0xE8)
        access = self.pit.read(self.now, 2, 1) & 0x30
        return low | self.pit.read(self.now, 2, 1) << 8 if access == WORD else low

    def status(self) -> int:
        self.pit.write(self.now, CONTROL_WORD, 1, 0xE8)
        return self.pit.read(self.now, 2, 1)

    def trace(self, pulses: int, first: int = 0) -> list[tuple[int, int]]:
        """(CE, OUT) after each of `pulses` pulses."""
        seen = []
        for pulse in range(first, first + pulses):
            self.clk(pulse)
            seen.append((self.ce(), self.out()))
        return seen


def levels(trace: list[tuple[int, int]]) -> str:
    return "".join("_-"[out] for _, out in trace)


def counts(trace: list[tuple[int, int]]) -> list[int]:
    return [ce for ce, _ in trace]


# --- Mode 0: interrupt on terminal count ------------------------------------------------------------


def test_mode_0_count_4_is_high_from_terminal_count_on_and_wraps() -> None:
    bench = Bench()
    bench.program(0, 4, 0, access=WORD)
    trace = bench.trace(7)
    assert counts(trace) == [4, 3, 2, 1, 0, 0xFFFF, 0xFFFE]
    assert levels(trace) == "____---"


def test_mode_0_control_word_sets_out_low_at_once() -> None:
    bench = Bench()
    assert bench.out() == 1
    bench.pit.write(0, CONTROL_WORD, 1, 0x90)
    assert bench.out() == 0


def test_mode_0_gate_low_freezes_the_count_and_not_out() -> None:
    bench = Bench()
    bench.program(0, 3)
    assert bench.trace(2) == [(3, 0), (2, 0)]
    bench.gate(0)
    assert bench.trace(3) == [(2, 0)] * 3
    bench.gate(1)
    assert bench.trace(4) == [(2, 0), (1, 0), (0, 1), (0xFF, 1)]


def test_mode_0_count_written_while_gate_low_is_loaded_and_waits() -> None:
    bench = Bench(gate=0)
    bench.program(0, 5)
    bench.clk(1)
    assert (bench.ce(), bench.status() & 0x40) == (5, 0)
    bench.gate(1)
    assert levels(bench.trace(7)) == "_____--"


def test_mode_0_new_count_restarts_the_count() -> None:
    bench = Bench()
    bench.program(0, 3)
    assert levels(bench.trace(5)) == "___--"
    bench.write(2)
    assert bench.trace(4) == [(2, 0), (1, 0), (0, 1), (0xFF, 1)]


def test_mode_0_first_of_two_bytes_stops_the_count_and_sets_out_low() -> None:
    bench = Bench()
    bench.program(0, 2, 0, access=WORD)
    bench.clk(3)
    assert (bench.ce(), bench.out()) == (0xFFFF, 1)
    bench.write(6)
    bench.clk(10)
    assert (bench.ce(), bench.out()) == (0xFFFF, 0)
    bench.write(0)
    assert levels(bench.trace(8)) == "______--"


# --- Mode 1: hardware retriggerable one-shot --------------------------------------------------------


def test_mode_1_waits_for_a_trigger_then_is_low_for_the_count() -> None:
    bench = Bench()
    bench.program(1, 3)
    bench.clk(20)
    assert (bench.out(), bench.status() & 0x40) == (1, 0x40)
    bench.trigger()
    assert bench.trace(5) == [(3, 0), (2, 0), (1, 0), (0, 1), (0xFF, 1)]


def test_mode_1_retriggered_extends_the_pulse() -> None:
    bench = Bench()
    bench.program(1, 3)
    bench.trigger()
    assert levels(bench.trace(3)) == "___"
    bench.trigger()
    assert bench.trace(4) == [(3, 0), (2, 0), (1, 0), (0, 1)]


def test_mode_1_new_count_waits_for_the_next_trigger() -> None:
    bench = Bench()
    bench.program(1, 2)
    bench.trigger()
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 4)
    assert levels(bench.trace(6, first=1)) == "_-----"
    assert bench.status() & 0x40
    bench.trigger()
    assert levels(bench.trace(6)) == "____--"
    assert not bench.status() & 0x40


def test_mode_1_gate_low_does_not_stop_the_count() -> None:
    bench = Bench()
    bench.program(1, 3)
    bench.trigger()
    bench.pit.write(0, SYSTEM_CONTROL_B, 1, 0)
    assert levels(bench.trace(4)) == "___-"


def test_mode_1_trigger_without_a_count_does_nothing() -> None:
    bench = Bench()
    bench.program(1)
    bench.trigger()
    assert levels(bench.trace(5)) == "-----"


# --- Mode 2: rate generator -------------------------------------------------------------------------


def test_mode_2_count_3_is_low_for_the_pulse_at_1() -> None:
    bench = Bench()
    bench.program(2, 3)
    trace = bench.trace(8)
    assert counts(trace) == [3, 2, 1, 3, 2, 1, 3, 2]
    assert levels(trace) == "--_--_--"


def test_mode_2_gate_low_sets_out_high_and_a_trigger_reloads() -> None:
    bench = Bench()
    bench.program(2, 3)
    assert levels(bench.trace(3)) == "--_"
    bench.gate(0)
    assert bench.trace(3) == [(1, 1)] * 3
    bench.gate(1)
    assert bench.trace(4) == [(3, 1), (2, 1), (1, 0), (3, 1)]


def test_mode_2_new_count_is_loaded_at_the_end_of_the_cycle() -> None:
    bench = Bench()
    bench.program(2, 4)
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 5)
    trace = bench.trace(9, first=1)
    assert counts(trace) == [3, 2, 1, 5, 4, 3, 2, 1, 5]
    assert levels(trace) == "--_----_-"


def test_mode_2_null_count_lasts_until_the_end_of_the_cycle() -> None:
    bench = Bench()
    bench.program(2, 4)
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 5)
    bench.clk(3)
    assert bench.status() & 0x40
    bench.clk(4)
    assert not bench.status() & 0x40


def test_mode_2_new_count_is_loaded_by_a_trigger_before_the_end_of_the_cycle() -> None:
    bench = Bench()
    bench.program(2, 9)
    bench.clk(1)
    bench.write(3)
    bench.trigger()
    assert counts(bench.trace(4)) == [3, 2, 1, 3]


def test_mode_2_second_new_count_is_loaded_at_the_end_of_its_own_cycle() -> None:
    bench = Bench()
    bench.program(2, 4)
    for at, count in ((1, 5), (5, 3)):
        bench.clk(at)
        bench.pit.write(bench.now, 2, 1, count)
    assert counts(bench.trace(8, first=5)) == [4, 3, 2, 1, 3, 2, 1, 3]


@pytest.mark.parametrize("mode", [1, 2, 3, 5])
def test_trigger_without_a_new_count_leaves_null_count_clear(mode: int) -> None:
    bench = Bench()
    bench.program(mode, 4)
    bench.trigger()
    bench.clk(1)
    bench.trigger()
    assert not bench.status() & 0x40


@pytest.mark.parametrize("mode", [1, 2, 3, 5])
def test_trigger_with_a_new_count_clears_null_count_on_the_pulse_after_it(mode: int) -> None:
    bench = Bench()
    bench.program(mode, 4)
    bench.trigger()
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 9)
    bench.trigger()
    assert bench.status() & 0x40
    bench.now += 1
    assert not bench.status() & 0x40


def test_mode_2_late_look_after_a_reload_keeps_the_phase() -> None:
    # 4 pulses of the old count from 0, then 5 a cycle: 4 + 5·1000 + 2 shows 3.
    bench = Bench()
    bench.program(2, 4)
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 5)
    bench.clk(4 + 5 * 1000 + 2)
    assert bench.ce() == 3


# --- Mode 3: square wave ----------------------------------------------------------------------------


def test_mode_3_even_count_4() -> None:
    bench = Bench()
    bench.program(3, 4)
    trace = bench.trace(9)
    assert counts(trace) == [4, 2, 4, 2, 4, 2, 4, 2, 4]
    assert levels(trace) == "--__--__-"


def test_mode_3_odd_count_5() -> None:
    bench = Bench()
    bench.program(3, 5)
    trace = bench.trace(11)
    assert counts(trace) == [4, 2, 0, 4, 2, 4, 2, 0, 4, 2, 4]
    assert levels(trace) == "---__---__-"


def test_mode_3_gate_low_sets_out_high_and_a_trigger_reloads() -> None:
    bench = Bench()
    bench.program(3, 4)
    assert levels(bench.trace(4)) == "--__"
    bench.gate(0)
    assert bench.trace(2) == [(2, 1)] * 2
    bench.gate(1)
    assert bench.trace(5) == [(4, 1), (2, 1), (4, 0), (2, 0), (4, 1)]


def test_mode_3_new_count_is_loaded_at_the_end_of_the_high_half() -> None:
    bench = Bench()
    bench.program(3, 6)
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 4)
    trace = bench.trace(8, first=1)
    assert counts(trace) == [4, 2, 4, 2, 4, 2, 4, 2]
    assert levels(trace) == "--__--__"


def test_mode_3_new_odd_count_is_loaded_at_the_end_of_the_low_half() -> None:
    bench = Bench()
    bench.program(3, 4)
    bench.clk(3)
    bench.pit.write(bench.now, 2, 1, 3)
    trace = bench.trace(7, first=3)
    assert counts(trace) == [2, 2, 0, 2, 2, 0, 2]
    assert levels(trace) == "_--_--_"


# --- Modes 4 and 5: strobes -------------------------------------------------------------------------


def test_mode_4_strobes_once_for_one_pulse() -> None:
    bench = Bench()
    bench.program(4, 3)
    trace = bench.trace(6)
    assert counts(trace) == [3, 2, 1, 0, 0xFF, 0xFE]
    assert levels(trace) == "---_--"
    bench.clk(3 + 0x10000)
    assert bench.out() == 1


def test_mode_4_gate_low_freezes_the_count() -> None:
    bench = Bench(gate=0)
    bench.program(4, 3)
    assert bench.trace(4) == [(3, 1)] * 4
    bench.gate(1)
    assert levels(bench.trace(5)) == "---_-"


def test_mode_4_new_count_restarts_and_its_first_byte_does_nothing() -> None:
    bench = Bench()
    bench.program(4, 3, 0, access=WORD)
    bench.clk(1)
    bench.pit.write(bench.now, 2, 1, 2)
    bench.clk(2)
    assert bench.ce() == 1
    bench.write(0)
    assert levels(bench.trace(4)) == "--_-"


def test_mode_5_strobes_after_each_trigger() -> None:
    bench = Bench()
    bench.program(5, 3)
    bench.clk(9)
    assert bench.out() == 1
    for _ in range(2):
        bench.trigger()
        trace = bench.trace(6)
        assert counts(trace) == [3, 2, 1, 0, 0xFF, 0xFE]
        assert levels(trace) == "---_--"


def test_mode_5_retriggered_before_the_strobe_starts_again() -> None:
    bench = Bench()
    bench.program(5, 3)
    bench.trigger()
    bench.clk(2)
    bench.trigger()
    assert levels(bench.trace(5)) == "---_-"


# --- All modes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alias", "mode"), [(6, 2), (7, 3)])
def test_mode_alias_counts_as_its_mode_and_reads_back_as_written(alias: int, mode: int) -> None:
    bench, twin = Bench(), Bench()
    bench.program(alias, 5)
    twin.program(mode, 5)
    assert bench.trace(12) == twin.trace(12)
    assert bench.status() & 0x3F == LSB | alias << 1


@pytest.mark.parametrize(("bcd", "modulus"), [(0, 0x10000), (1, 10_000)])
@pytest.mark.parametrize(("mode", "rises_at"), [(0, 1), (2, 1), (3, 1)])
def test_count_0_is_the_modulus(mode: int, rises_at: int, bcd: int, modulus: int) -> None:
    bench = Bench()
    bench.program(mode, 0, 0, access=WORD, bcd=bcd)
    assert bench.ce() == 0
    bench.clk(modulus - 1)
    assert bench.out() == 0
    bench.clk(modulus)
    assert bench.out() == rises_at


@pytest.mark.parametrize("mode", [2, 3])
def test_count_1_is_illegal_in_the_periodic_modes_and_out_stays_high(mode: int) -> None:
    bench = Bench()
    bench.program(mode, 1)
    assert levels(bench.trace(8)) == "--------"
    bench.pit.write(bench.now, 2, 1, 2)
    bench.start = bench.now
    assert levels(bench.trace(5, first=1)) == "-_-_-"


@pytest.mark.parametrize("mode", [0, 4])
def test_count_1_is_legal_in_the_software_modes(mode: int) -> None:
    bench = Bench()
    bench.program(mode, 1)
    assert levels(bench.trace(3)) == {0: "_--", 4: "-_-"}[mode]


def test_bcd_counts_in_decimal() -> None:
    bench = Bench()
    bench.program(0, 0x00, 0x10, access=WORD, bcd=1)
    assert counts(bench.trace(2)) == [0x1000, 0x0999]
    bench.clk(991)
    assert bench.ce() == 0x0009
    bench.clk(1001)
    assert bench.ce() == 0x9999


def test_bcd_square_wave_counts_by_twos_in_decimal() -> None:
    bench = Bench()
    bench.program(3, 0x12, bcd=1)
    trace = bench.trace(8)
    assert counts(trace) == [0x12, 0x10, 0x08, 0x06, 0x04, 0x02, 0x12, 0x10]
    assert levels(trace) == "------__"


def test_bcd_digits_above_9_are_weighed() -> None:
    bench = Bench()
    bench.program(0, 0xFF, 0xFF, access=WORD, bcd=1)  # 15·1111 = 16665
    assert bench.ce() == 0x6665


def test_control_word_freezes_the_count_until_a_new_one() -> None:
    bench = Bench()
    bench.program(2, 9)
    bench.clk(4)
    bench.program(3)
    bench.clk(9)
    assert (bench.ce(), bench.out()) == (5, 1)
    assert bench.status() & 0x40
