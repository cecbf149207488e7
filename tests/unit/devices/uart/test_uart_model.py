"""Registers, interrupts, modem lines, loopback and reset of the 16550A UART."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Effect, HostOutput, IrqLine, LateWrites
from kvmbox.devices.uart.model import Uart16550A

RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 0, 1, 2, 2, 3, 4, 5, 6, 7
LOOP, OUT2 = 0x10, 0x08
RAISE, LOWER = IrqLine(0, 1), IrqLine(0, 0)


def read(uart: Uart16550A, offset: int, now: int = 0) -> int:
    return uart.read(now, offset, 1)


def write(uart: Uart16550A, *pairs: tuple[int, int], now: int = 0) -> list[Effect]:
    for offset, value in pairs:
        uart.write(now, offset, 1, value)
    return effects(uart)


def effects(uart: Uart16550A) -> list[Effect]:
    """All but those that only tell the host when it may save an exit: test_uart_late.py has these."""
    return [effect for effect in uart.take_effects() if not isinstance(effect, LateWrites)]


def set_up(*pairs: tuple[int, int]) -> Uart16550A:
    uart = Uart16550A()
    write(uart, (LCR, 0x03), *pairs)
    return uart


# --- Registers --------------------------------------------------------------------------------------


def test_registers_after_power_on_hold_the_reset_configuration() -> None:
    uart = Uart16550A()

    values = [read(uart, offset) for offset in (IER, IIR, LCR, MCR, LSR, MSR, RBR, SCR)]

    assert values == [0x00, 0x01, 0x00, 0x00, 0x60, 0xB0, 0x00, 0x00]
    assert effects(uart) == []


def test_divisor_latch_at_power_on_is_9600_bits_per_second() -> None:
    uart = Uart16550A()
    write(uart, (LCR, 0x80))

    assert (read(uart, 0), read(uart, 1)) == (12, 0)


def test_dlab_set_opens_the_divisor_latch_and_hides_rbr_and_ier() -> None:
    uart = set_up((IER, 0x05), (LCR, 0x83), (0, 0x34), (1, 0x12))

    assert (read(uart, 0), read(uart, 1)) == (0x34, 0x12)
    write(uart, (LCR, 0x03))
    assert (read(uart, RBR), read(uart, IER)) == (0x00, 0x05)


def test_divisor_bytes_are_written_apart() -> None:
    uart = set_up((LCR, 0x83), (0, 0x34), (1, 0x12), (0, 0x56))

    assert (read(uart, 0), read(uart, 1)) == (0x56, 0x12)


@pytest.mark.parametrize(
    ("offset", "written", "readable"),
    [(IER, 0xFF, 0x0F), (LCR, 0x7F, 0x7F), (MCR, 0xFF, 0x1F), (SCR, 0xA5, 0xA5)],
)
def test_register_written_reads_back_its_implemented_bits(offset: int, written: int, readable: int) -> None:
    uart = Uart16550A()
    write(uart, (offset, written))

    assert read(uart, offset) == readable


@pytest.mark.parametrize(("offset", "value"), [(LSR, 0x60), (MSR, 0xB0)])
def test_status_register_written_is_unchanged(offset: int, value: int) -> None:
    uart = Uart16550A()

    write(uart, (offset, 0x1F))

    assert read(uart, offset) == value


@pytest.mark.parametrize("offset", [8, 100, -1, 1 << 70, -(1 << 70)])
@pytest.mark.parametrize(("size", "ones"), [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF), (8, (1 << 64) - 1)])
def test_unknown_offset_reads_ones_and_drops_writes(offset: int, size: int, ones: int) -> None:
    uart = Uart16550A()
    before = uart.snapshot()

    uart.write(0, offset, size, ones)

    assert uart.read(0, offset, size) == ones
    assert uart.snapshot() == before


def test_wide_access_reaches_one_register_with_its_low_byte() -> None:
    uart = Uart16550A()

    uart.write(0, SCR, 4, 0x1122_3344)

    assert uart.read(0, SCR, 4) == 0xFFFF_FF44
    assert uart.read(0, SCR, 2) == 0xFF44
    assert uart.read(0, LSR, 2) == 0xFF60


def test_fcr_without_its_enable_bit_programs_nothing() -> None:
    uart = set_up((MCR, LOOP), (THR, 0x41))

    write(uart, (FCR, 0xC6))

    assert read(uart, IIR) == 0x01
    assert read(uart, LSR) == 0x61
    assert read(uart, RBR) == 0x41


@pytest.mark.parametrize("change", [0x01, 0x00])
def test_fcr_enable_changed_clears_the_receiver(change: int) -> None:
    uart = set_up((FCR, change ^ 1), (MCR, LOOP), (THR, 0x41))

    write(uart, (FCR, change))

    assert read(uart, LSR) == 0x60
    assert read(uart, IIR) == (0xC1 if change else 0x01)


def test_fcr_written_again_without_resets_keeps_the_characters() -> None:
    uart = set_up((FCR, 0x01), (MCR, LOOP), (THR, 0x41))

    write(uart, (FCR, 0x81))

    assert read(uart, RBR) == 0x41


def test_fcr_receiver_reset_clears_characters_and_their_errors_but_not_an_overrun() -> None:
    uart = set_up((FCR, 0x01), (MCR, LOOP), (LCR, 0x43), (LCR, 0x03), *[(THR, 1)] * 16)
    assert effects(uart) == []

    write(uart, (FCR, 0x03))

    assert read(uart, LSR) == 0x62


# --- Interrupts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mcr", [0x00, 0x07, OUT2, LOOP])
def test_line_follows_intr_whatever_the_modem_outputs_are(mcr: int) -> None:
    uart = set_up((MCR, mcr))
    read(uart, MSR)

    assert write(uart, (IER, 0x02)) == [RAISE]
    assert write(uart, (MCR, mcr ^ OUT2)) == []
    assert read(uart, IIR) == 0x02


def test_received_byte_interrupts_a_guest_that_has_cleared_out2() -> None:
    uart = set_up((MCR, 0x00), (IER, 0x01))

    assert uart.receive(0, b"l") == 1
    assert RAISE in effects(uart)


def test_thre_interrupt_enabled_with_thr_empty_is_raised() -> None:
    uart = set_up((MCR, OUT2))

    assert write(uart, (IER, 0x02)) == [RAISE]


def test_thre_interrupt_identified_is_cleared_by_that_read() -> None:
    uart = set_up((MCR, OUT2), (IER, 0x02))

    assert read(uart, IIR) == 0x02
    assert effects(uart) == [LOWER]
    assert read(uart, IIR) == 0x01


def test_thre_interrupt_identified_in_fifo_mode_is_cleared_by_that_read() -> None:
    uart = set_up((MCR, OUT2), (FCR, 0x01), (IER, 0x02))

    assert [read(uart, IIR), read(uart, IIR)] == [0xC2, 0xC1]


def test_thre_interrupt_hidden_behind_received_data_survives_a_read_of_iir() -> None:
    uart = set_up((MCR, LOOP), (THR, 0x41), (IER, 0x03))

    assert [read(uart, IIR), read(uart, IIR)] == [0x04, 0x04]
    read(uart, RBR)
    assert [read(uart, IIR), read(uart, IIR)] == [0x02, 0x01]


def test_thre_interrupt_enabled_again_is_raised_again() -> None:
    uart = set_up((MCR, OUT2), (IER, 0x02))
    read(uart, IIR)
    effects(uart)

    assert write(uart, (IER, 0x02)) == []  # no edge of the enable bit
    assert write(uart, (IER, 0x00), (IER, 0x02)) == [RAISE]


def test_thre_interrupt_pending_falls_and_rises_around_a_write_of_thr() -> None:
    uart = set_up((MCR, OUT2), (IER, 0x02))

    assert write(uart, (THR, 0x41)) == [LOWER, HostOutput(b"A"), RAISE]


def test_thre_interrupt_acknowledged_rises_behind_the_next_character() -> None:
    uart = set_up((MCR, OUT2), (IER, 0x02))
    read(uart, IIR)
    effects(uart)

    assert write(uart, (THR, 0x41)) == [HostOutput(b"A"), RAISE]


@pytest.mark.parametrize("fcr", [0x05, 0x01])
def test_thre_interrupt_after_transmit_fifo_reset_or_mode_change_is_raised(fcr: int) -> None:
    uart = set_up((FCR, 0x00 if fcr == 0x01 else 0x01), (MCR, OUT2), (IER, 0x02))
    read(uart, IIR)
    effects(uart)

    assert write(uart, (FCR, fcr)) == [RAISE]


def test_interrupts_all_pending_are_identified_by_priority() -> None:
    uart = set_up((MCR, LOOP), (THR, 1), (THR, 2), (IER, 0x0F))  # overrun, data, THRE, modem deltas

    identified = [read(uart, IIR)]
    for register in (LSR, RBR, IIR, MSR):
        read(uart, register)
        identified.append(read(uart, IIR))

    # Reading IIR is what clears THRE, so it was cleared by the look before the loop's third step.
    assert identified == [0x06, 0x04, 0x02, 0x00, 0x01]


@pytest.mark.parametrize(
    ("enable", "identified"), [(0x01, 0x04), (0x02, 0x02), (0x04, 0x06), (0x08, 0x00), (0x00, 0x01)]
)
def test_interrupt_source_enabled_alone_is_identified(enable: int, identified: int) -> None:
    uart = set_up((MCR, LOOP), (THR, 1), (THR, 2), (IER, enable))

    assert read(uart, IIR) == identified


def test_interrupt_enable_cleared_lowers_the_line() -> None:
    uart = set_up((MCR, OUT2), (IER, 0x02))

    assert write(uart, (IER, 0x00)) == [LOWER]
    assert read(uart, IIR) == 0x01


def test_line_status_interrupt_ends_when_lsr_is_read() -> None:
    uart = set_up((MCR, LOOP), (THR, 1), (THR, 2))
    assert write(uart, (IER, 0x04)) == [RAISE]

    assert read(uart, LSR) == 0x63
    assert effects(uart) == [LOWER]
    assert read(uart, LSR) == 0x61


# --- Modem lines and loopback -----------------------------------------------------------------------


def test_modem_inputs_configured_appear_in_msr() -> None:
    uart = Uart16550A(modem_inputs=0x45)

    assert read(uart, MSR) == 0x40  # the lines only, no deltas


@pytest.mark.parametrize(
    ("output", "line", "delta"),
    [(0x01, 0x20, 0x02), (0x02, 0x10, 0x01), (0x08, 0x80, 0x08)],
    ids=["DTR-DSR", "RTS-CTS", "OUT2-DCD"],
)
def test_modem_output_changed_in_loopback_moves_its_input(output: int, line: int, delta: int) -> None:
    uart = set_up((MCR, LOOP))
    assert read(uart, MSR) == 0x0B  # CTS, DSR and DCD of the terminal went away
    assert read(uart, MSR) == 0x00

    write(uart, (MCR, LOOP | output))
    assert read(uart, MSR) == line | delta
    assert read(uart, MSR) == line
    write(uart, (MCR, LOOP))
    assert read(uart, MSR) == delta


def test_ring_indicator_in_loopback_sets_teri_on_its_trailing_edge_only() -> None:
    uart = set_up((MCR, LOOP))
    read(uart, MSR)

    write(uart, (MCR, LOOP | 0x04))
    assert read(uart, MSR) == 0x40
    write(uart, (MCR, LOOP))
    assert read(uart, MSR) == 0x04


def test_modem_deltas_add_up_until_msr_is_read() -> None:
    uart = set_up((MCR, LOOP))
    read(uart, MSR)

    write(uart, (MCR, LOOP | 0x01), (MCR, LOOP), (MCR, LOOP | 0x02))

    assert read(uart, MSR) == 0x13


def test_loopback_left_brings_the_terminals_lines_back() -> None:
    uart = set_up((MCR, LOOP))
    read(uart, MSR)

    write(uart, (MCR, 0x00))

    assert read(uart, MSR) == 0xBB


def test_modem_outputs_outside_loopback_do_not_reach_msr() -> None:
    uart = set_up((MCR, 0x0F))

    assert read(uart, MSR) == 0xB0


def test_modem_status_interrupt_ends_when_msr_is_read() -> None:
    uart = set_up((MCR, LOOP))
    read(uart, MSR)
    write(uart, (IER, 0x08))

    assert write(uart, (MCR, LOOP | 0x01)) == [RAISE]
    read(uart, MSR)
    assert effects(uart) == [LOWER]


def test_loopback_character_reaches_the_receiver_and_not_the_host() -> None:
    uart = set_up((MCR, LOOP))

    assert write(uart, (THR, 0xAE)) == []

    assert read(uart, LSR) == 0x61
    assert read(uart, RBR) == 0xAE
    assert read(uart, LSR) == 0x60


@pytest.mark.parametrize(("wls", "looped"), [(0, 0x1F), (1, 0x3F), (2, 0x7F), (3, 0xFF)])
def test_word_length_in_loopback_cuts_characters(wls: int, looped: int) -> None:
    uart = set_up((LCR, wls), (MCR, LOOP), (THR, 0xFF))

    assert read(uart, RBR) == looped


def test_loopback_overrun_without_fifos_replaces_rbr() -> None:
    uart = set_up((MCR, LOOP), (THR, 0x41), (THR, 0x42))

    assert read(uart, LSR) == 0x63
    assert read(uart, RBR) == 0x42
    assert read(uart, LSR) == 0x60


def test_loopback_overrun_with_fifos_keeps_the_sixteen_and_loses_the_newcomer() -> None:
    uart = set_up((FCR, 0x01), (MCR, LOOP), *[(THR, value) for value in range(16)])
    assert read(uart, LSR) == 0x61

    write(uart, (THR, 0x99))

    assert read(uart, LSR) == 0x63
    assert [read(uart, RBR) for _ in range(16)] == list(range(16))
    assert read(uart, LSR) == 0x60


@pytest.mark.parametrize("order", [((MCR, LOOP), (LCR, 0x43)), ((LCR, 0x43), (MCR, LOOP))])
def test_break_looped_back_is_one_null_character_with_bi(order: tuple[tuple[int, int], ...]) -> None:
    uart = set_up(*order)

    assert [read(uart, LSR), read(uart, LSR)] == [0x71, 0x61]
    assert read(uart, RBR) == 0x00
    write(uart, (LCR, 0x4B), (MCR, LOOP | 0x01))
    assert read(uart, LSR) == 0x60


def test_break_looped_back_a_second_time_is_received_again() -> None:
    uart = set_up((MCR, LOOP), (LCR, 0x43), (LCR, 0x03))
    read(uart, LSR)
    read(uart, RBR)

    write(uart, (LCR, 0x43))

    assert read(uart, LSR) == 0x71


def test_break_looped_back_in_fifo_mode_sets_the_fifo_error_bit() -> None:
    uart = set_up((FCR, 0x01), (MCR, LOOP), (IER, 0x04))

    assert write(uart, (LCR, 0x43)) == [RAISE]
    assert read(uart, IIR) == 0xC6
    assert [read(uart, LSR), read(uart, LSR)] == [0xF1, 0x61]


def test_break_outside_loopback_is_not_received() -> None:
    uart = set_up((LCR, 0x43))

    assert read(uart, LSR) == 0x60


@pytest.mark.parametrize("mcr", [0x00, LOOP])
def test_character_under_a_break_is_lost(mcr: int) -> None:
    uart = set_up((MCR, mcr), (LCR, 0x43))
    read(uart, RBR)

    assert write(uart, (THR, 0x41)) == []
    assert read(uart, LSR) & 0x61 == 0x60


# --- Reset ------------------------------------------------------------------------------------------


def test_reset_restores_all_but_scratch_and_divisor() -> None:
    uart = set_up((LCR, 0x83), (0, 0x34), (1, 0x12), (LCR, 0x1B), (SCR, 0x77), (FCR, 0xC1))
    write(uart, (MCR, 0x1F), (IER, 0x0F), (THR, 0x41))

    uart.reset(0)

    assert effects(uart)[-1:] == [LOWER]
    values = [read(uart, offset) for offset in (IER, IIR, LCR, MCR, LSR, MSR, RBR, SCR)]
    assert values == [0x00, 0x01, 0x00, 0x00, 0x60, 0xB0, 0x00, 0x77]
    write(uart, (LCR, 0x80))
    assert (read(uart, 0), read(uart, 1)) == (0x34, 0x12)


def test_reset_with_the_line_low_has_no_effect_on_it() -> None:
    uart = set_up((MCR, OUT2))

    uart.reset(0)

    assert effects(uart) == []


def test_reset_ends_a_character_time_out() -> None:
    uart = set_up((FCR, 0x01), (MCR, LOOP), (THR, 1), (IER, 0x01))
    assert uart.next_deadline() is not None

    uart.reset(0)

    assert uart.next_deadline() is None
