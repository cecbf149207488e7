"""When the UART lets writes to THR be late, and that a guest cannot tell whether they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.model import PULSES, Effect, HostOutput, IrqLine, LateWrites
from kvmbox.devices.uart.model import Uart16550A
from kvmbox.host.interrupt_lines import InterruptRouter

THR, IER, LCR, MCR = 0, 1, 3, 4
ALLOWED, FORBIDDEN, PULSING = LateWrites(THR, 1), LateWrites(THR, 0), LateWrites(THR, PULSES)
IRQ = 4


def late(uart: Uart16550A, offset: int, value: int) -> list[Effect]:
    uart.write(0, offset, 1, value)
    return [effect for effect in uart.take_effects() if isinstance(effect, LateWrites)]


def test_interrupt_of_the_transmitter_makes_late_writes_pulse() -> None:
    uart = Uart16550A()

    assert late(uart, IER, 0x00) == []
    assert late(uart, IER, 0x01) == []
    assert late(uart, IER, 0x02) == [PULSING]
    assert late(uart, IER, 0x00) == [ALLOWED]
    assert late(uart, IER, 0xF0) == []  # no such bits
    assert late(uart, IER, 0x0F) == [FORBIDDEN]  # the modem's has a lower priority


def test_interrupt_of_a_higher_priority_forbids_late_writes_until_it_is_acknowledged() -> None:
    uart = Uart16550A()
    assert late(uart, IER, 0x03) == [PULSING]

    uart.receive(0, b"x")
    assert FORBIDDEN in uart.take_effects()
    uart.read(0, THR, 1)
    assert PULSING in uart.take_effects()


def test_loop_with_an_interrupt_forbids_late_writes() -> None:
    uart = Uart16550A()

    assert late(uart, MCR, 0x10) == []
    assert late(uart, IER, 0x01) == [FORBIDDEN]
    assert late(uart, MCR, 0x00) == [ALLOWED]


def test_divisor_latch_is_no_interrupt_enable() -> None:
    uart = Uart16550A()

    assert late(uart, LCR, 0x80) == []
    assert late(uart, IER, 0x02) == []
    assert late(uart, LCR, 0x00) == []
    assert late(uart, IER, 0x02) == [PULSING]
    assert late(uart, LCR, 0x80) == [FORBIDDEN]


def test_paced_uart_says_nothing() -> None:
    uart = Uart16550A(pace_transmit=True)

    assert late(uart, IER, 0x02) == []
    assert late(uart, IER, 0x00) == []


def test_reset_allows_late_writes_without_a_word() -> None:
    uart = Uart16550A()
    late(uart, IER, 0x02)

    uart.reset(0)

    assert not any(isinstance(effect, LateWrites) for effect in uart.take_effects())
    assert late(uart, IER, 0x02) == [PULSING]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
        st.tuples(st.just("write"), st.just(THR), st.integers(32, 126)),
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("write"), st.just(IER), st.sampled_from([0, 0, 0, 1, 2, 2, 3])),
        st.tuples(st.just("receive"), st.just(0), st.integers(0, 255)),
        st.tuples(st.just("flush"), st.just(0), st.just(0)),
    ),
    max_size=60,
)


class Machine:
    """Runs a program on a UART. With `delays`, writes to THR wait for the next access, as in KVM's ring, and
    make the line rise if they are to.
    """

    def __init__(self, *, delays: bool) -> None:
        self.uart = Uart16550A()
        self.delays = delays
        self.allowed = 1
        self.waiting = bytearray()
        self.reads: list[int] = []
        self.output = b""
        self.router = InterruptRouter()
        self.line = self.router.source(IRQ)
        self.levels: list[tuple[bool, int]] = []  # of the line, with its rises, before each step

    def step(self, kind: str, offset: int, value: int) -> None:
        state = self.router.lines[IRQ]
        self.levels.append((state.is_high, state.raised))
        if kind == "write" and offset == THR and self.delays and self.allowed:
            self.waiting.append(value)
            if self.allowed == PULSES:
                ahead, self.line.ahead = self.line.ahead, 0  # as compiled code does
                level = self.line.level
                self.line(0, 0)
                self.line(1, 0)
                self.line.level, self.line.ahead = level, ahead + 1
            return
        if kind == "receive":
            self.uart.receive(0, bytes([value]))
            self.take()
            return
        self.drain()
        if kind == "flush":
            return
        if kind == "write":
            self.uart.write(0, offset, 1, value)
        else:
            self.reads.append(self.uart.read(0, offset, 1))
        self.take()

    def drain(self) -> None:
        if self.waiting:
            self.uart.write_run(0, THR, bytes(self.waiting))
            self.take()
        self.waiting.clear()

    def take(self) -> None:
        for effect in self.uart.take_effects():
            match effect:
                case HostOutput(data):
                    self.output += data
                case IrqLine(_, level, coalesced):
                    self.line(level, coalesced)
                case LateWrites(_, allowed):
                    self.allowed = allowed
                    if allowed != PULSES:
                        self.line.settle()


@given(STEPS)
def test_guest_cannot_tell_whether_its_writes_were_late(steps: list[tuple[str, int, int]]) -> None:
    prompt, tardy = Machine(delays=False), Machine(delays=True)
    for kind, offset, value in steps:
        prompt.step(kind, offset, value)
        tardy.step(kind, offset, value)
    tardy.drain()

    assert tardy.reads == prompt.reads
    assert tardy.levels == prompt.levels
    assert tardy.output == prompt.output
    assert tardy.uart.snapshot() == prompt.uart.snapshot()


@pytest.mark.parametrize("lcr", [0, 1, 2, 3, 0x43, 0x83])
@pytest.mark.parametrize("ier", [0x00, 0x02, 0x0F])
@pytest.mark.parametrize("mcr", [0x00, 0x10])
def test_full_ring_of_late_writes_fits_in_a_reply_and_prints_the_same(lcr: int, ier: int, mcr: int) -> None:
    """Another CPU may have changed the registers while the writes were on their way."""
    data = bytes(range(169))
    together, apart = Uart16550A(), Uart16550A()
    for uart in (together, apart):
        for offset, value in ((IER, ier), (MCR, mcr), (LCR, lcr)):
            uart.write(0, offset, 1, value)
        uart.take_effects()

    together.write_run(0, THR, data)
    for value in data:
        apart.write(0, THR, 1, value)

    effects, single = together.take_effects(), apart.take_effects()
    assert len(effects) <= 64
    assert printed(effects) == printed(single)
    assert [one.level for one in effects if isinstance(one, IrqLine)][-1:] == [
        one.level for one in single if isinstance(one, IrqLine)
    ][-1:]
    assert together.snapshot() == apart.snapshot()


def printed(effects: list[Effect]) -> bytes:
    return b"".join(one.data for one in effects if isinstance(one, HostOutput))
