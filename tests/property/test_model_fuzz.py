"""Every model of the catalogue against its contract (`tests/support/model_rig.py`), by random programs.

`tests/property/test_server_models.py` has the models behind a channel and a server, and `tests/fuzz` the same
programs, led by the branches that they take.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.contract.catalog import MODELS
from tests.support.dice import Dice
from tests.support.model_programs import LAST_TIME, SECOND, Step, program, steps_from
from tests.support.model_rig import (
    MOST_STATE,
    OWN_MEMORY,
    Rig,
    check_harmless,
    check_often,
    check_steady,
    check_twin,
    check_watched,
    try_restore,
)
from tests.support.model_variants import VARIANTS
from tests.support.work import footprint

each_model = pytest.mark.parametrize("name", VARIANTS)


def steps_for(name: str, *, most: int = 300) -> st.SearchStrategy[list[Step]]:
    """Calls for the model of this variant, from `most` bytes at most: some six bytes make a step."""
    model = VARIANTS[name].model
    return st.binary(min_size=most // 3, max_size=most).map(lambda data: steps_from(model, Dice(data)))


def test_variants_are_every_model_of_the_catalogue() -> None:
    assert {device.model for device in VARIANTS.values()} == set(MODELS)


@each_model
@settings(max_examples=150)
@given(data=st.data())
def test_model_keeps_its_contract_whatever_happens(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    rig.snapshot()


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_restored_model_has_the_same_future(name: str, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    check_twin(rig, data.draw(steps_for(name)))


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_snapshot_changes_nothing(name: str, data: st.DataObject) -> None:
    check_watched(VARIANTS[name], data.draw(steps_for(name)))


@each_model
@settings(max_examples=60)
@given(data=st.data(), extra=st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=4))
def test_advancing_more_often_changes_nothing_that_the_guest_reads(
    name: str, data: st.DataObject, extra: list[int]
) -> None:
    check_often(VARIANTS[name], data.draw(steps_for(name)), extra)


@each_model
@settings(max_examples=60)
@given(data=st.data())
def test_steady_value_stays_and_reading_it_has_no_effect(name: str, data: st.DataObject) -> None:
    check_steady(Rig(VARIANTS[name]), data.draw(steps_for(name)))


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
    max_size=3,
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


@each_model
@settings(max_examples=150)
@given(data=st.data(), mutations=MUTATIONS)
def test_damaged_snapshot_is_rejected_or_harmless(
    name: str, data: st.DataObject, mutations: list[tuple[str, int, int]]
) -> None:
    """What is taken is a state that the chip can have: it keeps the contract ever after."""
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name)))
    state = mutated(rig.snapshot(), mutations)
    if try_restore(rig, state):
        check_harmless(rig, state, data.draw(steps_for(name)))


@each_model
@settings(max_examples=60)
@given(state=st.binary(max_size=600), data=st.data())
def test_bytes_that_are_no_snapshot_are_rejected(name: str, state: bytes, data: st.DataObject) -> None:
    rig = Rig(VARIANTS[name])
    rig.play(data.draw(steps_for(name, most=60)))
    own = rig.snapshot()
    # Hypothesis knows the constants of the code that it tests, and so may make up a snapshot that is one.
    assert not try_restore(rig, state) or (len(state), state[:2]) == (len(own), own[:2])


@each_model
def test_snapshot_of_another_model_is_rejected(name: str) -> None:
    rig = Rig(VARIANTS[name])
    for other in VARIANTS.values():
        if other.model != VARIANTS[name].model:
            assert not try_restore(rig, Rig(other).snapshot()), other.model


# States worth damaging: something is running, waiting, latched or half done in each.
OPENINGS: Final[dict[str, list[Step]]] = {
    "uart_16550a": [
        *program((3, 0x03), (2, 0x81), (1, 0x0F), (4, 0x0B), (0, 0x41), (0, 0x42), (0, 0x43)),
        Step("receive", 10, data=b"waiting"),
    ],
    "pit_8254": [
        *program((3, 0x34), (0, 0x10), (0, 0x27), (3, 0xB6), (2, 0x33), (2, 0x05), (4, 0x03)),
        *program((3, 0xE2), (3, 0x70), (1, 0x99)),
        Step("advance", 12_345_678),
    ],
    "rtc_mc146818": [
        *program((0, 0x0A), (1, 0x26), (0, 0x0B), (1, 0x72), (0, 0x05), (1, 0xFF)),
        Step("advance", 1_234_567_890),
    ],
    "i8042": [
        *program((1, 0x60), (0, 0x47), (0, 0xF2), (0, 0xF0), (1, 0xD1), (1, 0xD4), (0, 0xF4)),
        Step("receive", 0, data=b"\0\1\2\0\3\0\1" * 2),
        Step("receive", 0, data=b"\x1f\x9f~S" * 8),
    ],
    "shutdown_port": program((0, ord("S")), (0, ord("h"))),
    "fw_cfg": [
        Step("write", 0, 0, 2, 0x24),
        *[Step("read", 0, 1)] * 70,
        Step("write", 0, 4, 4, 0x0100_0000),
    ],
    "vga_text": program((0x24, 0x0E), (0x25, 0x07), (0x10, 0x31), (0x18, 5), (0x19, 1), (0x19, 2), (0x14, 3)),
    "pc_testdev": program((0, 0x11), (16, 1), (39, 1), (0x1_0000, 0x55), (0x1_FFFF, 0xAA)),
}

# Everything that a driver might do next, on every register, now and much later.
AFTERWARDS: Final = [
    *(Step("read", 0, offset) for offset in range(8)),
    Step("deadline", 0),
    Step("receive", 1_000, data=b"0123456789abcdefghij"),
    *(Step("write", 500, offset, 1, value) for offset in range(8) for value in (0x00, 0x36, 0xFF)),
    *(Step("read", 1_000_000, offset) for offset in range(8)),
    Step("deadline", 0),
    Step("advance", 366 * 86_400 * SECOND),
    *(Step("read", 0, offset) for offset in range(8)),
    Step("reset", LAST_TIME),
    Step("write", -LAST_TIME, 0, 1, 0x55),
]


@each_model
@pytest.mark.parametrize("opening", ["power-on", "busy"])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_every_place_of_a_snapshot_damaged_is_rejected_or_harmless(
    name: str, opening: str, width: int
) -> None:
    device = VARIANTS[name]
    opened = Rig(device)
    opened.play(OPENINGS.get(device.model, []) if opening == "busy" else [])
    good = opened.snapshot()
    patterns = {bytes([fill]) * width for fill in (0x00, 0x01, 0x0F, 0x7F, 0x80, 0xFF)}
    patterns |= {b"\xff" * (width - 1) + b"\x7f", b"\x01" + bytes(width - 1), bytes(width - 1) + b"\x01"}
    taken = 0
    last = len(good) - width
    # Of much memory, where it begins and where it ends.
    places = range(last + 1) if last < MOST_STATE else (*range(40), *range(last - 9, last + 1))
    for place in places:
        for pattern in patterns:
            state = good[:place] + pattern + good[place + width :]
            rig = opened.twin(good)
            if try_restore(rig, state):
                taken += 1
                check_harmless(rig, state, AFTERWARDS)
    assert taken or width > 1  # one byte or another was what it is already


# --- Bounded state ---------------------------------------------------------------------------------------


@each_model
@settings(max_examples=25)
@given(data=st.data(), typed=st.binary(min_size=1, max_size=64))
def test_state_does_not_grow_with_input(name: str, data: st.DataObject, typed: bytes) -> None:
    """A guest that does the same thing over and over, and a host that types as fast as it can."""
    rig = Rig(VARIANTS[name])
    steps = data.draw(steps_for(name, most=60))
    sizes = []
    for turn in range(60):
        rig.play([step._replace(jump=1_000) for step in steps])
        for _ in range(10):
            rig.step(Step("receive", 0, data=typed * 10))
        rig.trace.clear()
        if turn in (9, 59):
            sizes.append(footprint(rig.model))
    # A snapshot has one size, and so would hide what grows: the objects themselves are weighed. Integers
    # take a few bytes more as they grow, and a bytearray keeps some room.
    early, late = sizes
    assert late <= early + 256
    assert late < 16_384 + OWN_MEMORY.get(rig.device.model, 0)
