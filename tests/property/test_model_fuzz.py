"""Every model of the catalogue, alone, against its contract: `kvmbox/devices/model.py`.

No channel and no server stands between (tests/property/test_server_models.py has those): offsets and sizes
that the bus never passes on, snapshots that no RESTORE would carry, and the state itself are in reach here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox import layout
from kvmbox.board import SERIAL_PORTS, BoardOptions, DeviceSpec, pc_board
from kvmbox.devices.catalog import MODELS, build_model
from kvmbox.devices.model import (
    DeviceModel,
    Effect,
    HostOutput,
    InputRoom,
    IrqLine,
    Reset,
    SnapshotError,
    Stop,
)

SECOND: Final = 1_000_000_000
LAST_TIME: Final = 1 << 62
"""146 years of guest time: what the VMM stamps at most."""

MOST_EFFECTS: Final = 64
"""Of one call: a frame takes 255 of all models together."""

MOST_STATE: Final = 1024
"""Bytes of a snapshot: CMOS RAM, FIFOs and registers fit in; what a guest can fill beyond is a leak."""


def variants() -> dict[str, DeviceSpec]:
    """Each model as the board has it, and with the parameters that make it behave in another way."""
    found = {}
    for pace in (False, True):
        options = BoardOptions(SERIAL_PORTS, 1_700_000_000, layout.MIN_MEMORY, uart_pace=pace)
        for device in pc_board(options):
            name = device.model + (" paced" if device.parameters.get("pace_transmit") else "")
            found.setdefault(name, device)
    return found


VARIANTS = variants()
each_model = pytest.mark.parametrize("name", VARIANTS)


class Step(NamedTuple):
    """One call of a model: its kind, how far time moves before it, and what is given."""

    kind: str
    jump: int
    offset: int = 0
    size: int = 1
    value: int = 0
    data: bytes = b""


SIZES = st.sampled_from([1, 1, 1, 1, 2, 4, 8])
OFFSETS = st.one_of(
    st.integers(0, 7),
    st.integers(0, 7),
    st.sampled_from([8, 127, 255, 256, 1 << 16, (1 << 32) - 1, (1 << 64) - 1]),
)
# Bits, limits, BCD digits, control words, divisors: a register's interesting values are few.
VALUES = st.one_of(
    st.integers(0, 0xFF),
    st.sampled_from([0, 1, 0x0A, 0x0B, 0x34, 0x70, 0x80, 0x83, 0xB6, 0xD1, 0xE2, 0xFE, 0xFF]),
    st.integers(0, (1 << 64) - 1),
)
JUMPS = st.one_of(
    st.just(0),
    st.integers(0, 2_000),
    st.integers(0, 2 * SECOND),
    st.integers(-SECOND, -1),
    st.sampled_from([86_400 * SECOND, 400 * 365 * 86_400 * SECOND // 4, -LAST_TIME, LAST_TIME]),
)
ACCESSES = st.tuples(st.sampled_from(["read", "write", "write"]), JUMPS, OFFSETS, SIZES, VALUES)
STEPS = st.lists(
    st.one_of(
        ACCESSES.map(lambda fields: Step(*fields)),
        ACCESSES.map(lambda fields: Step(*fields)),
        JUMPS.map(lambda jump: Step("advance", jump)),
        st.just(Step("deadline", 0)),
        st.tuples(JUMPS, st.binary(max_size=300)).map(lambda pair: Step("receive", pair[0], data=pair[1])),
        JUMPS.map(lambda jump: Step("reset", jump)),
    ),
    max_size=50,
)


class Rig:
    """A model, its time, and the checks that hold after every call."""

    def __init__(self, device: DeviceSpec) -> None:
        self.device = device
        self.model: DeviceModel = build_model(device.model, dict(device.parameters))
        self.now = 0
        self.seen = 0
        """The largest time that the model has been told."""
        self.lines = dict.fromkeys(range(len(device.irqs)), 0)
        self.rises = 0
        self.trace: list[object] = []

    def play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        self.now = min(max(0, self.now + step.jump), LAST_TIME)
        mask = (1 << 8 * step.size) - 1
        written = 0
        match step.kind:
            case "read":
                value = self.model.read(self.now, step.offset, step.size)
                assert type(value) is int
                assert 0 <= value <= mask
                self.trace.append(value)
            case "write":
                written = step.size
                assert self.model.write(self.now, step.offset, step.size, step.value & mask) is None  # type: ignore[func-returns-value]  # that is the point
            case "advance":
                self.model.advance(self.now)
            case "deadline":
                deadline = self.model.next_deadline()
                if deadline is not None and deadline <= LAST_TIME:
                    self.now = max(self.now, deadline)
                self.model.advance(self.now)
            case "receive":
                accepted = self.model.receive(self.now, step.data)
                assert 0 <= accepted <= len(step.data)
                assert accepted == 0 or self.device.takes_input
                self.trace.append(accepted)
            case "reset":
                self.model.reset(self.now)
            case _:
                raise AssertionError(step)
        self.seen = max(self.seen, self.now)
        effects = self.model.take_effects()
        self.check_effects(effects, is_write=step.kind == "write", written=written)
        assert self.model.take_effects() == []
        deadline = self.model.next_deadline()
        assert deadline is None or (type(deadline) is int and deadline > self.seen)
        self.trace.append((deadline, effects))

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        """What a model may cause: what its board granted it, and not without end."""
        assert len(effects) <= MOST_EFFECTS
        for effect in effects:
            match effect:
                case IrqLine(pin, level, coalesced):
                    assert level == 1 - self.lines[pin], "a level that was there already"
                    self.lines[pin] = level
                    assert coalesced >= 0
                    assert coalesced == 0 or level == 1
                    self.rises += level * (1 + coalesced)
                case HostOutput(data):
                    assert self.device.stream is not None
                    assert 0 < len(data) <= 64 + written
                case InputRoom(count):
                    assert self.device.takes_input
                    assert 0 < count <= 16
                case Reset():
                    assert self.device.may_reset
                    assert is_write
                case Stop():
                    assert self.device.stops
                    assert is_write

    def snapshot(self) -> bytes:
        state = self.model.snapshot()
        assert len(state) <= MOST_STATE
        return state

    def twin(self, state: bytes) -> Rig:
        """A fresh model that became what `state` says, at the same time of the same board."""
        other = Rig(self.device)
        other.model.restore(state)
        other.now, other.seen, other.lines = self.now, self.seen, dict(self.lines)
        return other


def test_variants_are_every_model_of_the_catalogue() -> None:
    assert {device.model for device in VARIANTS.values()} == set(MODELS)


@each_model
@settings(max_examples=150)
@given(steps=STEPS)
def test_model_keeps_its_contract_whatever_happens(name: str, steps: list[Step]) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(steps)
    rig.snapshot()


@each_model
@settings(max_examples=60)
@given(before=STEPS, after=STEPS)
def test_restored_model_has_the_same_future(name: str, before: list[Step], after: list[Step]) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(before)
    state = rig.snapshot()
    twin = rig.twin(state)
    assert twin.snapshot() == state
    rig.trace.clear()
    rig.play(after)
    twin.play(after)
    assert twin.trace == rig.trace
    assert twin.snapshot() == rig.snapshot()


@each_model
@settings(max_examples=60)
@given(steps=STEPS)
def test_snapshot_changes_nothing(name: str, steps: list[Step]) -> None:
    quiet, watched = Rig(VARIANTS[name]), Rig(VARIANTS[name])
    quiet.play(steps)
    for step in steps:
        watched.step(step)
        assert watched.snapshot() == watched.snapshot()
    assert watched.trace == quiet.trace


@each_model
@settings(max_examples=60)
@given(steps=STEPS, extra=st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=4))
def test_advancing_more_often_changes_nothing_that_the_guest_reads(
    name: str, steps: list[Step], extra: list[int]
) -> None:
    """Time passes alike in one step and in many; only how many edges are folded into one may differ."""
    device = VARIANTS[name]
    once, often = Rig(device), Rig(device)
    for step in steps:
        if step.kind == "deadline":
            continue  # the deadlines of the two may be different ones
        once.step(step)
        target = min(max(0, often.now + step.jump), LAST_TIME)
        for delta in sorted(extra):
            if often.now + delta < target:
                often.step(Step("advance", delta))
        often.step(step._replace(jump=target - often.now))
    numbers = [item for item in once.trace if isinstance(item, int)]
    assert [item for item in often.trace if isinstance(item, int)] == numbers
    assert often.lines == once.lines
    assert often.rises == once.rises


# --- Snapshots as hostile input --------------------------------------------------------------------------

MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, MOST_STATE), st.integers(0, 255)),
        st.tuples(st.just("flip"), st.integers(0, MOST_STATE), st.integers(0, 7)),
        st.tuples(st.just("fill"), st.integers(0, MOST_STATE), st.sampled_from([0x00, 0x7F, 0x80, 0xFF])),
        st.tuples(st.just("cut"), st.integers(0, MOST_STATE), st.just(0)),
        st.tuples(st.just("grow"), st.integers(1, 5_000), st.integers(0, 255)),
        st.tuples(st.just("drop"), st.integers(0, MOST_STATE), st.integers(1, 9)),
    ),
    min_size=1,
    max_size=6,
)


def mutated(state: bytes, mutations: Sequence[tuple[str, int, int]]) -> bytes:
    changed = bytearray(state)
    for what, number, value in mutations:
        place = number % len(changed) if changed else 0
        match what:
            case "set" if changed:
                changed[place] = value
            case "flip" if changed:
                changed[place] ^= 1 << value
            case "fill":  # a whole word: a time, a count, a length
                changed[place : place + 8] = bytes([value]) * len(changed[place : place + 8])
            case "cut":
                del changed[place:]
            case "grow":
                changed += bytes([value]) * number
            case "drop":
                del changed[place : place + value]
            case _:
                pass
    return bytes(changed)


def try_restore(rig: Rig, state: bytes) -> bool:
    """Whether `state` was taken; if not, the model is what it was."""
    before = rig.snapshot()
    deadline = rig.model.next_deadline()
    try:
        rig.model.restore(state)
    except SnapshotError:
        assert rig.model.take_effects() == []
        assert rig.snapshot() == before
        assert rig.model.next_deadline() == deadline
        return False
    return True


@each_model
@settings(max_examples=150)
@given(steps=STEPS, mutations=MUTATIONS, after=STEPS)
def test_damaged_snapshot_is_rejected_or_harmless(
    name: str, steps: list[Step], mutations: list[tuple[str, int, int]], after: list[Step]
) -> None:
    """What is taken is a state that the chip can have: it keeps the contract ever after."""
    rig = Rig(VARIANTS[name])
    rig.play(steps)
    state = mutated(rig.snapshot(), mutations)
    if not try_restore(rig, state):
        return
    assert rig.model.take_effects() == []
    # What follows from something else may be put right by the model; after that, nothing moves any more.
    settled = rig.snapshot()
    assert len(settled) == len(state)
    assert rig.twin(settled).snapshot() == settled
    # The lines are where the state says, which the board hears of with the next change only.
    rig.lines = dict.fromkeys(rig.lines, 0)
    lenient = Lenient(rig)
    lenient.play([Step("advance", 0), *after])
    lenient.snapshot()


class Lenient(Rig):
    """A rig around a model whose history is unknown: the first edge of a line may be either, and time may be
    any up to the largest.
    """

    def __init__(self, rig: Rig) -> None:
        self.__dict__.update(rig.__dict__)
        self._unknown = set(self.lines)

    def check_effects(self, effects: list[Effect], *, is_write: bool, written: int) -> None:
        for effect in effects:
            if isinstance(effect, IrqLine) and effect.pin in self._unknown:
                self._unknown.discard(effect.pin)
                self.lines[effect.pin] = 1 - effect.level
        super().check_effects(effects, is_write=is_write, written=written)


@each_model
@settings(max_examples=60)
@given(state=st.binary(max_size=600), steps=STEPS)
def test_bytes_that_are_no_snapshot_are_rejected(name: str, state: bytes, steps: list[Step]) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(steps)
    own = rig.snapshot()
    # Hypothesis knows the constants of the code that it tests, and so may make up a snapshot that is one.
    assert not try_restore(rig, state) or (len(state), state[:2]) == (len(own), own[:2])


@each_model
def test_snapshot_of_another_model_is_rejected(name: str) -> None:
    rig = Rig(VARIANTS[name])
    for other in VARIANTS.values():
        if other.model != VARIANTS[name].model:
            assert not try_restore(rig, Rig(other).snapshot()), other.model


# --- Bounded state ---------------------------------------------------------------------------------------


@each_model
@settings(max_examples=25)
@given(
    writes=st.lists(st.tuples(st.integers(0, 7), SIZES, VALUES), min_size=1, max_size=8),
    data=st.binary(min_size=1, max_size=64),
)
def test_state_does_not_grow_with_input(name: str, writes: list[tuple[int, int, int]], data: bytes) -> None:
    """A guest that does the same thing a thousand times, and a host that types a thousand times as fast."""
    rig = Rig(VARIANTS[name])
    sizes = []
    for turn in range(200):
        for offset, size, value in writes:
            rig.step(Step("write", 0, offset, size, value))
        rig.step(Step("receive", 0, data=data * 10))
        if turn in (20, 199):
            sizes.append(len(rig.snapshot()))
    early, late = sizes
    assert late <= early + 64  # a FIFO that is full now, and was not yet then
