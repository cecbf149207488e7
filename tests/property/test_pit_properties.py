"""The PIT against the tick-by-tick reference, and what must hold for any program whatever."""

from __future__ import annotations

from typing import TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.contract.model import Effect, IrqLine, SnapshotError
from kvmbox.devices.pit.model import Pit8254
from tests.reference.pit_by_ticks import PitByTicks

Operation: TypeAlias = tuple[int, str, int, int]  # ns to wait first, "read" or "write", offset, value

PULSE = 838  # ns, about
COUNT_AND_STATUS_OF_ALL = 0xCE  # a read-back command

waits = st.one_of(
    st.just(0),
    st.integers(0, 3 * PULSE),
    st.integers(0, 40 * PULSE),
    st.integers(0, 300 * PULSE),
)
bytes_ = st.one_of(st.integers(0, 12), st.integers(0, 255))
control_words = st.builds(
    lambda counter, access, mode, bcd: counter << 6 | access << 4 | mode << 1 | bcd,
    st.integers(0, 2),
    st.sampled_from((1, 1, 2, 3, 3, 0)),
    st.integers(0, 7),
    st.integers(0, 1),
)
read_backs = st.builds(lambda bits: 0xC0 | bits, st.integers(0, 63))
# Short counts are the interesting ones: byte access to the LSB, or a word with a small MSB.
operations = st.one_of(
    st.tuples(waits, st.just("write"), st.just(3), control_words),
    st.tuples(waits, st.just("write"), st.just(3), read_backs),
    st.tuples(waits, st.just("write"), st.integers(0, 2), bytes_),
    st.tuples(waits, st.just("write"), st.just(4), st.integers(0, 255)),
    st.tuples(waits, st.just("read"), st.integers(0, 4), st.just(0)),
)


def programming(counter: int) -> st.SearchStrategy[list[Operation]]:
    """A control word with its count, so that counters are often in use."""
    return st.builds(
        lambda wait, mode, bcd, low, high: [
            (wait, "write", 3, counter << 6 | 0x30 | mode << 1 | bcd),
            (0, "write", counter, low),
            (0, "write", counter, high),
        ],
        waits,
        st.integers(0, 7),
        st.integers(0, 1),
        bytes_,
        st.sampled_from((0, 0, 0, 1)),
    )


programs = st.lists(
    st.one_of(st.lists(operations, min_size=1, max_size=6), programming(0), programming(2), programming(2)),
    max_size=12,
).map(lambda groups: [operation for group in groups for operation in group])


def perform(pit: Pit8254, now: int, operation: Operation) -> int | None:
    _, kind, offset, value = operation
    if kind == "read":
        return pit.read(now, offset, 1)
    pit.write(now, offset, 1, value)
    return None


def line_after(pit: Pit8254, level: int | None) -> int | None:
    """The level of the interrupt line that was at `level`; None while it has not been heard of."""
    for effect in pit.take_effects():
        assert isinstance(effect, IrqLine)
        assert effect.level != level
        level = effect.level
    return level


def edges(effects: list[Effect]) -> int:
    """Rising edges, those folded into others included."""
    return sum(1 + e.coalesced for e in effects if isinstance(e, IrqLine) and e.level)


@settings(max_examples=400)
@given(programs)
def test_pit_any_program_reads_as_the_reference(program: list[Operation]) -> None:
    pit, reference, now = Pit8254(), PitByTicks(), 0
    for step, operation in enumerate(program):
        wait, kind, offset, value = operation
        now += wait
        if kind == "read":
            assert pit.read(now, offset, 1) == reference.read(now, offset), (step, operation)
        else:
            pit.write(now, offset, 1, value)
            reference.write(now, offset, value)
        deadline = pit.next_deadline()
        assert deadline is None or deadline > now
    # Everything that can still be seen, twice: latched, then direct.
    for command in (COUNT_AND_STATUS_OF_ALL,) * 3:
        now += 700
        pit.write(now, 3, 1, command)
        reference.write(now, 3, command)
        for offset in (0, 1, 2, 4) * 3:
            assert pit.read(now, offset, 1) == reference.read(now, offset)


@settings(max_examples=150)
@given(programs, st.integers(1, 120))
def test_pit_any_program_counts_as_the_reference_at_every_pulse(
    program: list[Operation], pulses: int
) -> None:
    pit, reference, now = Pit8254(), PitByTicks(), 0
    for operation in program:
        now += operation[0]
        perform(pit, now, operation)
        if operation[1] == "write":
            reference.write(now, *operation[2:])
        else:
            reference.read(now, operation[2])
    line = line_after(pit, None)
    for pulse in range(pulses):
        at = now + pulse * PULSE
        pit.write(at, 3, 1, COUNT_AND_STATUS_OF_ALL)
        reference.write(at, 3, COUNT_AND_STATUS_OF_ALL)
        for offset in (0, 0, 0, 1, 1, 1, 2, 2, 2, 4):
            assert pit.read(at, offset, 1) == reference.read(at, offset), (pulse, offset)
        line = line_after(pit, line)
        assert line in (None, int(reference.counters[0].out))


@settings(max_examples=150)
@given(programs, st.integers(1, 60))
def test_pit_driven_by_its_deadlines_changes_the_line_when_the_reference_does(
    program: list[Operation], steps: int
) -> None:
    pit, reference, now = Pit8254(), PitByTicks(), 0
    # Mode 0, so that the line is driven from the beginning.
    for operation in [(0, "write", 3, 0x10), *program, (0, "read", 3, 0)]:
        now += operation[0]
        perform(pit, now, operation)
        if operation[1] == "write":
            reference.write(now, *operation[2:])
    counter = reference.counters[0]
    counter.run_until(now)
    pit.take_effects()
    for _ in range(steps):
        deadline = pit.next_deadline()
        if deadline is None:
            before = counter.out
            counter.run_until(now + 600 * PULSE)
            assert counter.out == before
            return
        if deadline > now + 2000 * PULSE:
            return
        counter.run_until(deadline - 1)
        before = counter.out
        counter.run_until(deadline)
        pit.advance(deadline - 1)
        assert pit.take_effects() == []
        pit.advance(deadline)
        expected = [IrqLine(0, int(counter.out))] if counter.out != before else []
        assert pit.take_effects() == expected


@settings(max_examples=150)
@given(programs, st.lists(st.integers(0, 400 * PULSE), max_size=8))
def test_pit_any_splitting_of_time_raised_and_coalesced_are_exact(
    program: list[Operation], extra: list[int]
) -> None:
    whole, split, reference = Pit8254(), Pit8254(), PitByTicks()
    now, in_whole, in_split = 0, 0, 0
    for operation in [(0, "write", 3, 0x10), *program, (200_000, "read", 3, 0)]:
        for time in sorted(now + step for step in extra if step < operation[0]):
            split.advance(time)
            in_split += edges(split.take_effects())
        now += operation[0]
        perform(whole, now, operation)
        perform(split, now, operation)
        if operation[1] == "write":
            reference.write(now, *operation[2:])
        effects = whole.take_effects()
        assert len(effects) <= 4
        in_whole += edges(effects)
        in_split += edges(split.take_effects())
    reference.counters[0].run_until(now)
    assert in_whole == in_split == reference.counters[0].rising_edges


@settings(max_examples=150)
@given(programs, programs)
def test_pit_snapshot_at_any_point_continues_equal(before: list[Operation], after: list[Operation]) -> None:
    pit, now = Pit8254(), 0
    for operation in before:
        now += operation[0]
        perform(pit, now, operation)
    pit.take_effects()
    state = pit.snapshot()
    copy = Pit8254()
    copy.restore(state)
    assert copy.snapshot() == state
    for operation in after:
        now += operation[0]
        assert perform(pit, now, operation) == perform(copy, now, operation)
        assert pit.take_effects() == copy.take_effects()
        assert pit.next_deadline() == copy.next_deadline()
    assert pit.snapshot() == copy.snapshot()


@settings(max_examples=300)
@given(programs, st.data(), programs)
def test_pit_damaged_snapshot_is_rejected_without_effect_or_is_whole(
    before: list[Operation], data: st.DataObject, after: list[Operation]
) -> None:
    pit, now = Pit8254(), 0
    for operation in before:
        now += operation[0]
        perform(pit, now, operation)
    pit.take_effects()
    state = pit.snapshot()
    damaged = bytearray(state)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(state) - 1))] = data.draw(st.integers(0, 255))
    try:
        pit.restore(bytes(damaged))
    except SnapshotError:
        assert pit.snapshot() == state
        return
    assert pit.snapshot() == damaged
    for operation in after:
        now += operation[0]
        perform(pit, now, operation)
    pit.restore(pit.snapshot())


anything = st.one_of(st.integers(-5, 300), st.integers(-(1 << 70), 1 << 70))


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(("read", "write", "advance", "reset", "receive", "snapshot")),
            anything,
            st.one_of(st.integers(0, 4), anything),
            st.one_of(st.sampled_from((1, 2, 4, 8)), anything),
            anything,
        ),
        max_size=30,
    )
)
def test_pit_any_access_never_raises(calls: list[tuple[str, int, int, int, int]]) -> None:
    pit = Pit8254()
    for kind, now, offset, size, value in calls:
        if kind == "read":
            result = pit.read(now, offset, size)
            assert 0 <= result < 1 << 8 * (size if size in (1, 2, 4, 8) else 1)
        elif kind == "write":
            pit.write(now, offset, size, value)
        elif kind == "advance":
            pit.advance(now)
        elif kind == "reset":
            pit.reset(now)
        elif kind == "receive":
            assert pit.receive(now, b"x") == 0
        else:
            pit.take_effects()
            pit.restore(pit.snapshot())
        deadline = pit.next_deadline()
        assert deadline is None or deadline > 0
