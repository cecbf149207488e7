"""When the UART lets writes to THR be late, and that a guest cannot tell whether they were."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.devices.model import Effect, HostOutput, IrqLine, LateWrites
from kvmbox.devices.uart_16550a import Uart16550A

THR, IER, LCR = 0, 1, 3
ALLOWED, FORBIDDEN = LateWrites(THR, 1), LateWrites(THR, 0)


def late(uart: Uart16550A, offset: int, value: int) -> list[Effect]:
    uart.write(0, offset, 1, value)
    return [effect for effect in uart.take_effects() if isinstance(effect, LateWrites)]


def test_interrupts_forbid_late_writes_and_their_end_allows_them_again() -> None:
    uart = Uart16550A()

    assert late(uart, IER, 0x00) == []
    assert late(uart, IER, 0x01) == [FORBIDDEN]
    assert late(uart, IER, 0x02) == []
    assert late(uart, IER, 0x00) == [ALLOWED]
    assert late(uart, IER, 0xF0) == []  # no such bits
    assert late(uart, IER, 0x0F) == [FORBIDDEN]


def test_divisor_latch_is_no_interrupt_enable() -> None:
    uart = Uart16550A()

    assert late(uart, LCR, 0x80) == []
    assert late(uart, IER, 0x01) == []


def test_paced_uart_says_nothing() -> None:
    uart = Uart16550A(pace_transmit=True)

    assert late(uart, IER, 0x02) == []
    assert late(uart, IER, 0x00) == []


def test_reset_allows_late_writes_without_a_word() -> None:
    uart = Uart16550A()
    late(uart, IER, 0x02)

    uart.reset(0)

    assert not any(isinstance(effect, LateWrites) for effect in uart.take_effects())
    assert late(uart, IER, 0x02) == [FORBIDDEN]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
        st.tuples(st.just("write"), st.just(THR), st.integers(32, 126)),
        st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
        st.tuples(st.just("write"), st.just(IER), st.sampled_from([0, 0, 0, 1, 2, 3])),
    ),
    max_size=60,
)


class Machine:
    """Runs a program on a UART. With `delays`, writes to THR wait for the next access, as in KVM's ring."""

    def __init__(self, *, delays: bool) -> None:
        self.uart = Uart16550A()
        self.delays = delays
        self.allowed = True
        self.waiting: list[int] = []
        self.reads: list[int] = []
        self.output = b""
        self.level = 0
        self.levels: list[int] = []  # of the interrupt line, as the guest finds it before each step

    def step(self, kind: str, offset: int, value: int) -> None:
        self.levels.append(self.level)
        if kind == "write" and offset == THR and self.delays and self.allowed:
            self.waiting.append(value)
            return
        self.drain()
        if kind == "write":
            self.uart.write(0, offset, 1, value)
        else:
            self.reads.append(self.uart.read(0, offset, 1))
        self.take()

    def drain(self) -> None:
        for value in self.waiting:
            self.uart.write(0, THR, 1, value)
            self.take()
        self.waiting.clear()

    def take(self) -> None:
        for effect in self.uart.take_effects():
            match effect:
                case HostOutput(data):
                    self.output += data
                case IrqLine(_, level):
                    self.level = level
                case LateWrites(_, allowed):
                    self.allowed = bool(allowed)


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
