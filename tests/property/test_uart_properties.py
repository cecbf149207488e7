"""What holds of the 16550A UART whatever a guest, a host and a clock do to it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, LateWrites, SnapshotError
from kvmbox.devices.uart import snapshot
from kvmbox.devices.uart.model import Uart16550A
from kvmbox.devices.uart.snapshot import UartState

RBR, THR, IER, IIR, FCR, LCR, MCR, LSR = 0, 0, 1, 2, 2, 3, 4, 5

# An operation moves the clock by its first member (also backwards), then does something to the UART.
Operation = tuple[int, str, int, int, int, bytes]

TIMES = st.one_of(
    st.just(0),
    st.integers(-1000, -1),  # no further back, or time would stand still for the rest of a program
    st.integers(0, 1 << 40),
    st.integers(0, 400_000),  # around character times and time-outs
    st.sampled_from([86_805, 86_806, 347_222, 347_223, 78_125]),
)
INTERESTING = st.sampled_from(
    [0x00, 0x01, 0x03, 0x07, 0x08, 0x0B, 0x10, 0x1F, 0x43, 0x80, 0x83, 0xC1, 0xC7, 0xFF]
)
OFFSETS = st.one_of(st.integers(0, 7), st.integers(0, 7), st.integers(-(1 << 70), 1 << 70))
VALUES = st.one_of(INTERESTING, st.integers(0, 255), st.integers(0, (1 << 64) - 1))

OPERATIONS: st.SearchStrategy[Operation] = st.one_of(
    st.tuples(TIMES, st.just("read"), OFFSETS, st.sampled_from([1, 1, 1, 2, 4, 8]), st.just(0), st.just(b"")),
    st.tuples(TIMES, st.just("write"), OFFSETS, st.sampled_from([1, 1, 1, 2, 4, 8]), VALUES, st.just(b"")),
    st.tuples(TIMES, st.just("write"), st.sampled_from([0, 1, 2, 3, 4]), st.just(1), VALUES, st.just(b"")),
    st.tuples(TIMES, st.just("receive"), st.just(0), st.just(1), st.just(0), st.binary(max_size=40)),
    st.tuples(TIMES, st.just("damaged"), st.just(0), st.just(1), VALUES, st.just(b"")),
    st.tuples(TIMES, st.just("advance"), st.just(0), st.just(1), st.just(0), st.just(b"")),
)


def _set_up(choices: tuple[int, int, int, int]) -> list[Operation]:
    """115200 bit/s and then a choice of modes, so that programs start where things happen."""
    lcr, fcr, ier, mcr = choices
    writes = ((LCR, 0x80), (0, 1), (1, 0), (LCR, lcr), (FCR, fcr), (IER, ier), (MCR, mcr))
    return [(0, "write", offset, 1, value, b"") for offset, value in writes]


SET_UPS: st.SearchStrategy[list[Operation]] = st.one_of(
    st.builds(list[Operation]),
    st.tuples(
        st.sampled_from([0x03, 0x00, 0x1F]),
        st.sampled_from([0x00, 0x01, 0x41, 0x81, 0xC1]),
        st.sampled_from([0x01, 0x03, 0x0F, 0x00]),
        st.sampled_from([0x0B, 0x10, 0x00]),
    ).map(_set_up),
)
PROGRAMS = st.builds(lambda first, rest: [*first, *rest], SET_UPS, st.lists(OPERATIONS, max_size=40))
CONTINUATIONS = st.lists(OPERATIONS, max_size=40)


def perform(uart: Uart16550A, now: int, operation: Operation) -> int:
    """Do it; returns what a guest or host would see."""
    _, what, offset, size, value, data = operation
    if what == "read":
        return uart.read(now, offset, size)
    if what == "write":
        uart.write(now, offset, size, value)
    elif what == "receive":
        return uart.receive(now, data)
    elif what == "damaged":
        return uart.receive_damaged(now, value & 0xFF, value >> 3)
    else:
        uart.advance(now)
    return 0


def state_of(uart: Uart16550A, paced: bool) -> UartState:
    return snapshot.unpack(uart.snapshot(), paced=paced, modem_inputs=0xB0)


def line_by_formula(state: UartState) -> int:
    """The level of the line, worked out from the registers alone (sections 8.4 to 8.9)."""
    trigger = {0x01: 1, 0x41: 4, 0x81: 8, 0xC1: 14}.get(state.fcr, 1)
    sources = (
        (0x01, state.rx_count >= trigger or bool(state.flags & snapshot.TIMEOUT_PENDING)),
        (0x02, bool(state.flags & snapshot.THRE_PENDING)),
        (0x04, bool(state.lsr & 0x1E)),
        (0x08, bool(state.msr & 0x0F)),
    )
    intr = any(state.ier & enable and active for enable, active in sources)
    return int(intr)


@given(program=PROGRAMS, paced=st.booleans())
@settings(max_examples=300)
def test_any_program_never_raises_and_keeps_every_invariant(program: list[Operation], paced: bool) -> None:
    uart = Uart16550A(pace_transmit=paced)
    now = 1 << 50
    line = 0
    for operation in program:
        now += operation[0]
        seen = perform(uart, now, operation)
        if operation[1] == "read":
            assert 0 <= seen < 1 << (8 * operation[3])
        elif operation[1] == "receive":
            assert 0 <= seen <= min(16, len(operation[5]))
        effects = uart.take_effects()
        # At most what a full XMIT FIFO can cause at once, never a guest-sized list.
        assert len(effects) <= 64
        for effect in effects:
            if isinstance(effect, IrqLine):
                assert (effect.pin, effect.level) == (0, 1 - line)
                line = effect.level
            else:
                assert isinstance(effect, HostOutput | InputRoom | LateWrites)
        state = state_of(uart, paced)  # unpack checks all bounds and all rules of the state
        assert line == line_by_formula(state)
        deadline = uart.next_deadline()
        assert deadline is None or deadline > state.now


@given(program=PROGRAMS, continuation=CONTINUATIONS, paced=st.booleans())
@settings(max_examples=200)
def test_snapshot_restore_continue_equals_continue(
    program: list[Operation], continuation: list[Operation], paced: bool
) -> None:
    uart = Uart16550A(pace_transmit=paced)
    now = 1 << 50
    for operation in program:
        now += operation[0]
        perform(uart, now, operation)
    uart.take_effects()
    other = Uart16550A(pace_transmit=paced)

    other.restore(uart.snapshot())

    for operation in continuation:
        now += operation[0]
        assert perform(other, now, operation) == perform(uart, now, operation)
        assert other.take_effects() == uart.take_effects()
        assert other.next_deadline() == uart.next_deadline()
    assert other.snapshot() == uart.snapshot()


@given(program=PROGRAMS, paced=st.booleans())
@settings(max_examples=200)
def test_advance_to_every_deadline_changes_nothing_that_a_guest_sees(
    program: list[Operation], paced: bool
) -> None:
    lazy, eager = Uart16550A(pace_transmit=paced), Uart16550A(pace_transmit=paced)
    now = 1 << 50
    for operation in program:
        now += operation[0]
        effects: list[Effect] = []
        while (deadline := eager.next_deadline()) is not None and deadline <= now:
            eager.advance(deadline)
            effects += eager.take_effects()
        assert perform(eager, now, operation) == perform(lazy, now, operation)
        assert effects + eager.take_effects() == lazy.take_effects()
    assert eager.snapshot() == lazy.snapshot()


@given(data=st.binary(max_size=200), pattern=st.lists(st.integers(0, 20), min_size=1), fifo=st.booleans())
def test_host_input_is_neither_lost_nor_doubled_nor_reordered(
    data: bytes, pattern: list[int], fifo: bool
) -> None:
    uart = Uart16550A()
    for offset, value in ((LCR, 0x03), (FCR, int(fifo)), (IER, 0x01)):
        uart.write(0, offset, 1, value)
    waiting, got = data, bytearray()
    may_send = True
    step = 0
    while waiting or uart.read(0, LSR, 1) & 0x01:
        # The host offers while it was not refused, the guest reads a few characters of what there is.
        if may_send and waiting:
            count = uart.receive(0, waiting)
            may_send = count == len(waiting)
            waiting = waiting[count:]
        for _ in range(max(1, pattern[step % len(pattern)])):
            if uart.read(0, LSR, 1) & 0x01:
                got.append(uart.read(0, RBR, 1))
        may_send = may_send or any(isinstance(effect, InputRoom) for effect in uart.take_effects())
        step += 1

    assert bytes(got) == data
    assert not uart.read(0, LSR, 1) & 0x02


@given(
    data=st.binary(max_size=60),
    lcr=st.sampled_from([0x00, 0x01, 0x02, 0x03, 0x07, 0x1F]),
    divisor=st.sampled_from([0, 1, 12, 0xFFFF]),
    fifo=st.booleans(),
)
def test_paced_transmitter_sends_every_character_that_thre_allowed(
    data: bytes, lcr: int, divisor: int, fifo: bool
) -> None:
    uart = Uart16550A(pace_transmit=True)
    settings_ = ((LCR, 0x80), (0, divisor & 0xFF), (1, divisor >> 8), (LCR, lcr), (FCR, int(fifo)))
    for offset, value in settings_:
        uart.write(0, offset, 1, value)
    now = 0
    for character in data:
        while not uart.read(now, LSR, 1) & 0x20:
            deadline = uart.next_deadline()
            assert deadline is not None
            assert deadline > now
            now = deadline
        uart.write(now, THR, 1, character)
    uart.advance(1 << 62)

    sent = b"".join(effect.data for effect in uart.take_effects() if isinstance(effect, HostOutput))
    assert sent == bytes(character & (0xFF >> (3 - (lcr & 3))) for character in data)
    assert uart.read(now, LSR, 1) == 0x60


@given(
    program=PROGRAMS,
    paced=st.booleans(),
    damage=st.lists(st.tuples(st.integers(0, 111), st.integers(1, 255)), max_size=4),
)
@settings(max_examples=300)
def test_damaged_snapshot_is_rejected_or_is_a_sound_state(
    program: list[Operation], paced: bool, damage: list[tuple[int, int]]
) -> None:
    uart = Uart16550A(pace_transmit=paced)
    now = 1 << 50
    for operation in program:
        now += operation[0]
        perform(uart, now, operation)
    uart.take_effects()
    damaged = bytearray(uart.snapshot())
    for index, flip in damage:
        damaged[index % len(damaged)] ^= flip
    other = Uart16550A(pace_transmit=paced)
    before = other.snapshot()

    try:
        other.restore(bytes(damaged))
    except SnapshotError:
        assert other.snapshot() == before
        return

    assert other.snapshot() == bytes(damaged)
    for step in range(20):
        other.read(now + step, step % 8, 1)
        other.write(now + step, step % 8, 1, 0x5B ^ step)
    other.advance(1 << 62)


SNAPSHOT_SIZE = len(Uart16550A().snapshot())


@given(data=st.binary(max_size=200) | st.binary(min_size=SNAPSHOT_SIZE, max_size=SNAPSHOT_SIZE))
def test_random_bytes_are_no_snapshot(data: bytes) -> None:
    uart = Uart16550A()
    before = uart.snapshot()

    with pytest.raises(SnapshotError):
        uart.restore(data)

    assert uart.snapshot() == before
