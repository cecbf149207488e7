"""Characters through the 16550A UART: transmit, pacing, host input, trigger levels, time-outs, errors."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, LateWrites
from kvmbox.devices.uart.model import Uart16550A

RBR, THR, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR = 0, 0, 1, 2, 2, 3, 4, 5, 6, 7
LOOP, OUT2 = 0x10, 0x08
PE, FE, BI = 0x04, 0x08, 0x10
RAISE, LOWER = IrqLine(0, 1), IrqLine(0, 0)

# 115200 bit/s, ns, rounded up: 10 bits, four times 10 bits, and 10 bits less the stop bit.
CHARACTER = 86_806
TIMEOUT = 347_223
THRE_DELAY = 78_125


def read(uart: Uart16550A, offset: int, now: int = 0) -> int:
    return uart.read(now, offset, 1)


def write(uart: Uart16550A, *pairs: tuple[int, int], now: int = 0) -> list[Effect]:
    for offset, value in pairs:
        uart.write(now, offset, 1, value)
    # Without those that only tell the host when it may save an exit: test_uart_late.py has them.
    return [effect for effect in uart.take_effects() if not isinstance(effect, LateWrites)]


def set_up(*pairs: tuple[int, int], pace_transmit: bool = False) -> Uart16550A:
    """A UART at 115200 bit/s, 8N1, that listens to the host."""
    uart = Uart16550A(pace_transmit=pace_transmit)
    write(uart, (LCR, 0x83), (0, 0x01), (1, 0x00), (LCR, 0x03), (IER, 0x01), (IER, 0x00), *pairs)
    return uart


# --- Transmit without pacing ------------------------------------------------------------------------


def test_transmit_completes_within_the_write() -> None:
    uart = set_up()

    assert write(uart, (THR, 0x48), (THR, 0x69)) == [HostOutput(b"H"), HostOutput(b"i")]
    assert read(uart, LSR) == 0x60
    assert uart.next_deadline() is None


@pytest.mark.parametrize(("lcr", "sent"), [(0x00, 0x1F), (0x01, 0x3F), (0x02, 0x7F), (0x03, 0xFF)])
def test_transmit_cuts_characters_to_the_word_length(lcr: int, sent: int) -> None:
    uart = set_up((LCR, lcr))

    assert write(uart, (THR, 0xFF)) == [HostOutput(bytes([sent]))]


def test_transmit_before_lcr_is_written_sends_eight_bits() -> None:
    uart = Uart16550A()

    assert read(uart, LCR) == 0x00
    assert write(uart, (THR, 0xFF)) == [HostOutput(b"\xff")]
    assert write(uart, (LCR, 0x00), (THR, 0xFF)) == [HostOutput(b"\x1f")]


def test_transmit_before_lcr_is_written_after_reset_sends_eight_bits() -> None:
    uart = set_up((LCR, 0x00))

    uart.reset(0)

    assert write(uart, (THR, 0xFF)) == [HostOutput(b"\xff")]


# --- Transmit with pacing ---------------------------------------------------------------------------


def test_paced_character_goes_out_after_its_time() -> None:
    uart = set_up(pace_transmit=True)

    assert write(uart, (THR, 0x41), now=1000) == []
    assert read(uart, LSR, now=1000) == 0x20  # THR is empty, the shift register is not
    assert uart.next_deadline() == 1000 + CHARACTER
    uart.advance(1000 + CHARACTER - 1)
    assert uart.take_effects() == []
    uart.advance(1000 + CHARACTER)
    assert uart.take_effects() == [HostOutput(b"A")]
    assert read(uart, LSR, now=1000 + CHARACTER) == 0x60
    assert uart.next_deadline() is None


@pytest.mark.parametrize(
    ("lcr", "divisor", "nanoseconds"),
    [
        (0x03, 1, 86_806),  # 1 + 8 + 1 bits
        (0x03, 12, 1_041_667),
        (0x00, 1, 60_764),  # 1 + 5 + 1
        (0x04, 1, 65_105),  # 1 + 5 + 1.5
        (0x05, 1, 78_125),  # 1 + 6 + 2
        (0x0B, 1, 95_487),  # 1 + 8 + parity + 1
        (0x1F, 1, 104_167),  # 1 + 8 + parity + 2
        (0x03, 0, 86_806),  # a divisor of 0 counts as 1
        (0x1F, 0xFFFF, 6_826_562_500),
    ],
)
def test_character_time_follows_lcr_and_divisor(lcr: int, divisor: int, nanoseconds: int) -> None:
    uart = set_up((LCR, 0x80), (0, divisor & 0xFF), (1, divisor >> 8), (LCR, lcr), pace_transmit=True)

    write(uart, (THR, 0x00))

    assert uart.next_deadline() == nanoseconds


def test_paced_thr_holds_one_character_behind_the_shift_register() -> None:
    uart = set_up((MCR, OUT2), pace_transmit=True)
    write(uart, (THR, 0x41), (IER, 0x02))
    read(uart, IIR)
    uart.take_effects()

    write(uart, (THR, 0x42))
    assert read(uart, LSR) == 0x00
    uart.advance(CHARACTER)
    assert uart.take_effects() == [HostOutput(b"A"), RAISE]
    assert read(uart, LSR, now=CHARACTER) == 0x20
    uart.advance(2 * CHARACTER)
    assert uart.take_effects() == [HostOutput(b"B")]
    assert read(uart, LSR, now=2 * CHARACTER) == 0x60


def test_paced_thr_overwritten_sends_the_later_character() -> None:
    uart = set_up(pace_transmit=True)
    write(uart, (THR, 0x41), (THR, 0x42), (THR, 0x43))

    uart.advance(10 * CHARACTER)

    assert uart.take_effects() == [HostOutput(b"A"), HostOutput(b"C")]


def test_paced_fifo_drains_a_burst_in_one_jump_and_sets_thre_with_the_last_load() -> None:
    uart = set_up((FCR, 0x01), (MCR, OUT2), (IER, 0x02), pace_transmit=True)
    read(uart, IIR)
    uart.take_effects()
    write(uart, *[(THR, value) for value in b"abc"])

    uart.advance(2 * CHARACTER - 1)
    assert uart.take_effects() == [HostOutput(b"a")]
    assert read(uart, LSR, now=2 * CHARACTER - 1) == 0x00
    uart.advance(2 * CHARACTER)
    assert uart.take_effects() == [HostOutput(b"b"), RAISE]
    uart.advance(1 << 60)
    assert uart.take_effects() == [HostOutput(b"c")]
    assert read(uart, LSR) == 0x60


def test_paced_fifo_with_a_single_character_delays_thre_by_all_but_the_stop_bit() -> None:
    uart = set_up((FCR, 0x01), (MCR, OUT2), (IER, 0x02), pace_transmit=True)

    assert write(uart, (THR, 0x41)) == [LOWER]
    assert uart.next_deadline() == THRE_DELAY
    assert read(uart, LSR, now=THRE_DELAY - 1) == 0x00
    assert read(uart, LSR, now=THRE_DELAY) == 0x20
    assert uart.take_effects() == [RAISE]
    assert uart.next_deadline() == CHARACTER


def test_paced_fifo_with_a_single_character_after_a_burst_delays_thre_again() -> None:
    uart = set_up((FCR, 0x01), (THR, 1), (THR, 2), (THR, 3), pace_transmit=True)
    uart.advance(3 * CHARACTER)
    assert read(uart, LSR) == 0x60

    write(uart, (THR, 4))

    assert read(uart, LSR) == 0x00


def test_paced_fifo_holds_sixteen_behind_the_shift_register_and_drops_more() -> None:
    uart = set_up((FCR, 0x01), pace_transmit=True)
    write(uart, *[(THR, value) for value in range(20)])

    uart.advance(100 * CHARACTER)

    assert uart.take_effects() == [HostOutput(bytes([value])) for value in range(17)]


def test_paced_fifo_reset_spares_the_shift_register() -> None:
    uart = set_up((FCR, 0x01), pace_transmit=True)
    write(uart, *[(THR, value) for value in b"abc"])

    write(uart, (FCR, 0x05))

    assert read(uart, LSR) == 0x20
    uart.advance(10 * CHARACTER)
    assert uart.take_effects() == [HostOutput(b"a")]
    assert read(uart, LSR) == 0x60


def test_paced_loopback_delivers_after_the_character_time() -> None:
    uart = set_up((MCR, LOOP), pace_transmit=True)
    write(uart, (THR, 0x41))

    assert read(uart, LSR, now=CHARACTER - 1) == 0x20
    assert read(uart, LSR, now=CHARACTER) == 0x61
    assert read(uart, RBR, now=CHARACTER) == 0x41


def test_paced_loopback_noticed_late_times_out_from_the_arrival() -> None:
    uart = set_up((FCR, 0xC1), (MCR, LOOP), (IER, 0x01), pace_transmit=True)
    write(uart, (THR, 0x41))

    uart.advance(CHARACTER + 5000)

    assert uart.next_deadline() == CHARACTER + TIMEOUT


def test_paced_break_is_looped_back_when_it_lasted_for_a_character() -> None:
    uart = set_up((MCR, LOOP), (LCR, 0x43), pace_transmit=True)

    assert uart.next_deadline() == CHARACTER
    assert read(uart, LSR, now=CHARACTER - 1) == 0x60
    assert read(uart, LSR, now=CHARACTER) == 0x71
    assert read(uart, RBR, now=CHARACTER) == 0x00
    assert uart.next_deadline() is None


def test_paced_break_cut_short_is_not_received() -> None:
    uart = set_up((MCR, LOOP), (LCR, 0x43), pace_transmit=True)

    write(uart, (LCR, 0x03), now=CHARACTER - 1)

    assert read(uart, LSR, now=10 * CHARACTER) == 0x60


def test_time_that_goes_back_is_clamped() -> None:
    uart = set_up(pace_transmit=True)
    uart.advance(1_000_000)

    assert read(uart, LSR, now=4) == 0x60
    uart.advance(3)
    write(uart, (THR, 0x41), now=5)

    assert uart.next_deadline() == 1_000_000 + CHARACTER


# --- Host input -------------------------------------------------------------------------------------


def test_receive_with_fifos_takes_sixteen_in_order() -> None:
    uart = set_up((FCR, 0x01))

    assert uart.receive(0, bytes(range(20))) == 16
    assert uart.receive(0, b"x") == 0
    assert [read(uart, RBR) for _ in range(16)] == list(range(16))
    assert read(uart, LSR) == 0x60  # host input never overruns
    assert uart.take_effects() == [InputRoom(16)]


def test_receive_without_fifos_takes_one() -> None:
    uart = set_up()

    assert uart.receive(0, b"ab") == 1
    assert uart.receive(0, b"b") == 0
    assert read(uart, LSR) == 0x61
    assert read(uart, RBR) == 0x61
    assert uart.take_effects() == [InputRoom(1)]
    assert read(uart, RBR) == 0x61  # an empty RBR shows its last character again


def test_receive_all_accepted_announces_no_room() -> None:
    uart = set_up((FCR, 0x01))

    assert uart.receive(0, b"ab") == 2
    read(uart, RBR)
    read(uart, RBR)

    assert uart.take_effects() == []
    assert read(uart, RBR) == 0x00  # an empty FIFO


def test_receive_refused_announces_room_once_and_when_all_is_read() -> None:
    uart = set_up((FCR, 0x01))
    assert uart.receive(0, bytes(17)) == 16

    for _ in range(15):
        read(uart, RBR)
    assert uart.take_effects() == []
    read(uart, RBR)
    assert uart.take_effects() == [InputRoom(16)]
    read(uart, RBR)
    assert uart.take_effects() == []


def test_receive_refused_announces_room_when_fcr_clears_the_receiver() -> None:
    uart = set_up()
    assert uart.receive(0, b"ab") == 1

    assert write(uart, (FCR, 0x01)) == [InputRoom(16)]


def test_receive_cuts_characters_to_the_word_length() -> None:
    uart = set_up((LCR, 0x02))
    uart.receive(0, b"\xc1")

    assert read(uart, RBR) == 0x41


def test_receive_in_loopback_is_refused_until_it_is_left() -> None:
    uart = set_up((MCR, LOOP))

    assert uart.receive(0, b"a") == 0
    assert read(uart, LSR) == 0x60
    assert write(uart, (MCR, 0x00)) == [InputRoom(1)]


def test_receive_nothing_offered_is_no_refusal() -> None:
    uart = Uart16550A()

    assert uart.receive(0, b"") == 0
    assert write(uart, (IER, 0x01)) == []


def test_receive_before_the_guest_listens_is_refused() -> None:
    uart = Uart16550A()
    assert uart.receive(0, b"a") == 0

    assert write(uart, (IER, 0x0C), (LCR, 0x80), (0, 1), (1, 0), (LCR, 3), (FCR, 0xC7), (MCR, 0x0B)) == []
    assert uart.receive(0, b"a") == 0
    assert write(uart, (IER, 0x01)) == [InputRoom(16)]
    assert uart.receive(0, b"a") == 1


def test_guest_that_prints_does_not_listen() -> None:
    uart = Uart16550A()
    uart.receive(0, b"a")

    for character in b"hello":
        assert read(uart, LSR) == 0x60
        write(uart, (THR, character))

    assert uart.receive(0, b"a") == 0


@pytest.mark.parametrize("register", [LSR, RBR])
def test_guest_that_polls_twice_listens(register: int) -> None:
    uart = Uart16550A()
    uart.receive(0, b"a")

    read(uart, register)
    assert uart.take_effects() == []
    read(uart, register)
    assert uart.take_effects() == [InputRoom(1)]


def test_guest_that_reads_lsr_and_rbr_once_does_not_listen() -> None:
    uart = Uart16550A()
    uart.receive(0, b"a")

    for register in (LSR, RBR, IIR, MSR):
        read(uart, register)

    assert uart.take_effects() == []


@pytest.mark.parametrize("register", [LSR, RBR])
def test_guest_that_polls_in_loopback_does_not_listen(register: int) -> None:
    uart = Uart16550A()
    write(uart, (MCR, LOOP))

    for _ in range(3):
        read(uart, register)
    write(uart, (MCR, 0x00))

    assert uart.receive(0, b"a") == 0


def test_guest_that_waits_for_the_paced_transmitter_does_not_listen() -> None:
    uart = Uart16550A(pace_transmit=True)
    write(uart, (THR, 0x41))

    for now in range(5):
        assert read(uart, LSR, now) == 0x20

    assert uart.receive(5, b"a") == 0


def test_reset_ends_listening() -> None:
    uart = set_up()

    uart.reset(0)

    assert uart.receive(0, b"a") == 0


# --- Trigger levels and the character time-out ------------------------------------------------------


@pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_received_data_interrupt_follows_the_trigger_level(fcr: int, level: int) -> None:
    uart = set_up((FCR, fcr), (MCR, OUT2), (IER, 0x01))

    uart.receive(0, bytes(level - 1))
    assert uart.take_effects() == []
    assert read(uart, IIR) == 0xC1
    uart.receive(0, b"x")
    assert uart.take_effects() == [RAISE]
    assert read(uart, IIR) == 0xC4
    read(uart, RBR)
    assert uart.take_effects() == [LOWER]
    assert read(uart, IIR) == 0xC1


def test_trigger_level_programmed_while_characters_wait_takes_effect() -> None:
    uart = set_up((FCR, 0xC1), (MCR, OUT2), (IER, 0x01))
    uart.receive(0, b"abcd")

    assert write(uart, (FCR, 0x41)) == [RAISE]
    assert write(uart, (FCR, 0x81)) == [LOWER]


def test_character_time_out_comes_four_characters_after_the_last_arrival() -> None:
    uart = set_up((FCR, 0xC1), (MCR, OUT2), (IER, 0x01))

    uart.receive(100, b"a")
    uart.receive(200, b"b")
    assert uart.next_deadline() == 200 + TIMEOUT
    uart.advance(200 + TIMEOUT - 1)
    assert uart.take_effects() == []
    uart.advance(200 + TIMEOUT)
    assert uart.take_effects() == [RAISE]
    assert read(uart, IIR) == 0xCC
    assert uart.next_deadline() is None


def test_character_time_out_is_cleared_and_started_again_by_a_read() -> None:
    uart = set_up((FCR, 0xC1), (MCR, OUT2), (IER, 0x01))
    uart.receive(0, b"ab")
    uart.advance(TIMEOUT)
    uart.take_effects()

    assert read(uart, RBR, now=TIMEOUT + 50) == 0x61
    assert uart.take_effects() == [LOWER]
    assert uart.next_deadline() == 2 * TIMEOUT + 50
    assert read(uart, RBR, now=TIMEOUT + 60) == 0x62
    assert uart.next_deadline() is None


def test_character_time_out_stays_when_another_character_arrives() -> None:
    uart = set_up((FCR, 0xC1), (IER, 0x01))
    uart.receive(0, b"a")
    uart.advance(TIMEOUT)

    uart.receive(TIMEOUT + 1, b"b")

    assert read(uart, IIR, now=TIMEOUT + 1) == 0xCC
    assert uart.next_deadline() is None  # it has happened: nothing more to wait for


def test_character_time_out_pending_is_identified_before_the_trigger_level() -> None:
    uart = set_up((FCR, 0x41), (IER, 0x01))
    uart.receive(0, b"abcde")
    assert read(uart, IIR) == 0xC4

    assert read(uart, IIR, now=TIMEOUT) == 0xCC
    read(uart, RBR, now=TIMEOUT)
    assert read(uart, IIR, now=TIMEOUT) == 0xC4


def test_character_time_out_with_its_interrupt_disabled_needs_no_advance_and_shows_later() -> None:
    uart = set_up((FCR, 0xC1), (MCR, OUT2))
    uart.receive(0, b"a")

    assert uart.next_deadline() is None
    assert read(uart, IIR, now=TIMEOUT) == 0xC1
    assert write(uart, (IER, 0x01), now=TIMEOUT) == [RAISE]
    assert read(uart, IIR, now=TIMEOUT) == 0xCC


def test_character_time_out_disabled_does_not_hide_the_transmitters_deadline() -> None:
    uart = set_up((FCR, 0xC1), pace_transmit=True)
    uart.receive(0, b"a")
    write(uart, (THR, 0x41), now=TIMEOUT - 100)

    assert uart.next_deadline() == TIMEOUT - 100 + THRE_DELAY


def test_character_time_out_without_fifos_does_not_exist() -> None:
    uart = set_up((IER, 0x01))

    uart.receive(0, b"a")

    assert uart.next_deadline() is None
    assert read(uart, IIR, now=1 << 60) == 0x04


@pytest.mark.parametrize("fcr", [0xC3, 0x00])
def test_character_time_out_ends_with_the_characters(fcr: int) -> None:
    uart = set_up((FCR, 0xC1), (IER, 0x01))
    uart.receive(0, b"a")
    uart.advance(TIMEOUT)

    write(uart, (FCR, fcr), now=TIMEOUT)

    assert read(uart, IIR) & 0x0F == 0x01
    assert uart.next_deadline() is None


def test_character_time_out_in_loopback_counts_from_the_character() -> None:
    uart = set_up((FCR, 0xC1), (MCR, LOOP), (IER, 0x01))

    write(uart, (THR, 0x41), now=700)

    assert uart.next_deadline() == 700 + TIMEOUT


def test_character_time_out_in_paced_loopback_loses_to_an_arrival_at_the_same_time() -> None:
    uart = set_up((LCR, 0x80), (0, 4), (LCR, 0x03), (FCR, 0xC1), (IER, 0x01), pace_transmit=True)
    write(uart, (LCR, 0x80), (0, 1), (LCR, 0x03))
    uart.receive(0, b"a")  # times out at 4 characters of divisor 1, one of divisor 4
    write(uart, (LCR, 0x80), (0, 4), (LCR, 0x03), (MCR, LOOP), (THR, 0x42))

    assert read(uart, IIR, now=TIMEOUT) == 0xC1


# --- Line errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [PE, FE, BI])
def test_error_without_fifos_shows_at_once_and_until_lsr_is_read(error: int) -> None:
    uart = set_up((MCR, OUT2), (IER, 0x04))

    assert uart.receive_damaged(0, 0x41, error) == 1

    assert uart.take_effects() == [RAISE]
    assert read(uart, IIR) == 0x06
    assert [read(uart, LSR), read(uart, LSR)] == [0x61 | error, 0x61]
    assert uart.take_effects() == [LOWER]


def test_error_with_fifos_shows_when_its_character_is_at_the_top() -> None:
    uart = set_up((FCR, 0x01), (MCR, OUT2), (IER, 0x04))
    uart.receive(0, b"a")
    uart.receive_damaged(0, 0x62, PE)
    uart.receive_damaged(0, 0x63, FE)

    assert read(uart, LSR) == 0xE1  # an error in the FIFO, none at the top
    assert uart.take_effects() == []
    assert read(uart, RBR) == 0x61
    assert uart.take_effects() == [RAISE]
    assert read(uart, LSR) == 0xE5  # more errors follow
    assert read(uart, LSR) == 0xE1
    assert read(uart, RBR) == 0x62
    assert [read(uart, LSR), read(uart, LSR)] == [0xE9, 0x61]
    assert read(uart, RBR) == 0x63
    assert read(uart, LSR) == 0x60


def test_error_that_was_not_looked_at_stays_behind_its_character() -> None:
    uart = set_up((FCR, 0x01))
    uart.receive_damaged(0, 0x41, PE)

    read(uart, RBR)

    assert [read(uart, LSR), read(uart, LSR)] == [0xE4, 0x60]


def test_errors_that_were_not_looked_at_add_up() -> None:
    uart = set_up((FCR, 0x01))
    uart.receive_damaged(0, 0x41, PE)
    uart.receive_damaged(0, 0x42, FE)

    read(uart, RBR)

    assert [read(uart, LSR), read(uart, LSR)] == [0xED, 0x61]


def test_error_bits_are_only_those_of_characters() -> None:
    uart = set_up()

    uart.receive_damaged(0, 0x41, 0xFF)

    assert read(uart, LSR) == 0x61 | PE | FE | BI


def test_damaged_character_is_refused_where_input_is() -> None:
    uart = set_up()
    assert uart.receive_damaged(0, 0x41, PE) == 1

    assert uart.receive_damaged(0, 0x42, PE) == 0
    assert read(uart, RBR) == 0x41
    assert uart.take_effects() == [InputRoom(1)]


def test_uart_room_is_told_below_the_trigger_level_not_only_when_empty() -> None:
    uart = Uart16550A()
    write(uart, (FCR, 0xC1), (IER, 0x01))  # trigger level 14
    uart.take_effects()
    assert uart.receive(0, b"0123456789abcdefXYZ") == 16

    for _ in range(2):
        uart.read(0, RBR, 1)
    assert not any(isinstance(effect, InputRoom) for effect in uart.take_effects())
    uart.read(0, RBR, 1)

    assert InputRoom(3) in uart.take_effects()
    assert uart.receive(0, b"XYZ") == 3


def test_uart_at_the_largest_guest_time_answers() -> None:
    uart = Uart16550A()

    assert uart.read((1 << 64) - 1, LSR, 1) == 0x60
