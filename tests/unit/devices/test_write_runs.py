"""A run of writes that a model takes at once is the same as each of the writes, but that a line which rises
several times does so once, and says how often.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.contract.model import DeviceModel, Effect, HostOutput, IrqLine, RunModel
from kvmbox.devices.debug.model import DebugCon
from kvmbox.devices.uart.model import Uart16550A

MODELS: Final[dict[str, Callable[[], RunModel]]] = {
    "uart": Uart16550A,
    "paced uart": lambda: Uart16550A(pace_transmit=True),
    "debugcon": DebugCon,
}
BYTE: Final = st.integers(0, 255)
OFFSET: Final = st.integers(0, 8)
# What matters to a character that is sent: interrupts, loopback, break, the divisor latch, the word length.
SET_UPS: Final = ((1, 0), (1, 1), (1, 2), (4, 0x10), (4, 0x08), (3, 3), (3, 0x43), (3, 0x83), (3, 0))
SET_UP: Final = st.sampled_from(SET_UPS)
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.just(0), st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("run"), OFFSET, st.binary(min_size=1, max_size=20)),
        SET_UP.map(lambda pair: ("write", *pair)),
        st.tuples(st.just("write"), OFFSET, BYTE),
        st.tuples(st.just("read"), OFFSET, st.just(0)),
        st.tuples(st.just("receive"), st.just(0), st.binary(max_size=3)),
    ),
    max_size=20,
)


def each_of(model: DeviceModel, now: int, offset: int, data: bytes) -> None:
    """The definition."""
    for byte in data:
        model.write(now, offset, 1, byte)


Step = tuple[str, int, int | bytes]


@pytest.mark.parametrize("name", MODELS)
@given(steps=STEPS)
def test_run_is_each_of_its_writes(name: str, steps: list[Step]) -> None:
    compare(name, steps)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("set_up", SET_UPS)
def test_run_is_each_of_its_writes_after_each_set_up(name: str, set_up: tuple[int, int]) -> None:
    compare(name, [("write", *set_up), ("run", 0, b"a\xffb"), ("read", 5, 0)])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("set_up", SET_UPS)
@pytest.mark.parametrize("enabled", [1, 2, 3, 15])
def test_long_run_is_each_of_its_writes(name: str, set_up: tuple[int, int], enabled: int) -> None:
    for length in (40, 41, 169):
        compare(name, [("write", 1, enabled), ("write", *set_up), ("run", 0, bytes(length)), ("read", 2, 0)])


def compare(name: str, steps: list[Step]) -> None:
    """A model that takes runs at once with one that takes each write."""
    model, reference = MODELS[name](), MODELS[name]()
    now = 0
    for what, offset, value in steps:
        now += 30_000
        if isinstance(value, int):
            for one in (model, reference):
                if what == "write":
                    one.write(now, offset, 1, value)
            if what == "read":
                assert model.read(now, offset, 1) == reference.read(now, offset, 1)
        elif what == "receive":
            assert model.receive(now, value) == reference.receive(now, value)
        else:
            model.write_run(now, offset, value)
            each_of(reference, now, offset, value)
        assert summed(model.take_effects()) == summed(reference.take_effects())
        assert model.next_deadline() == reference.next_deadline()
        assert model.snapshot() == reference.snapshot()


def summed(effects: list[Effect]) -> tuple[object, ...]:
    """What is printed, how often the line rises, how it is left, and all else."""
    levels = [(one.level, one.coalesced) for one in effects if isinstance(one, IrqLine)]
    return (
        b"".join(one.data for one in effects if isinstance(one, HostOutput)),
        sum(1 + folded for level, folded in levels if level),
        [level for level, _ in levels][-1:],
        [one for one in effects if not isinstance(one, HostOutput | IrqLine)],
    )


def test_run_with_the_interrupt_of_the_transmitter_is_one_rise() -> None:
    model = Uart16550A()
    model.write(0, 1, 1, 2)
    model.take_effects()
    model.write_run(0, 0, b"Hello")
    assert model.take_effects() == [IrqLine(0, 0), HostOutput(b"Hello"), IrqLine(0, 1, 4)]


@pytest.mark.parametrize("name", ["uart", "debugcon"])
def test_run_of_output_is_one_effect(name: str) -> None:
    model = MODELS[name]()
    model.write_run(0, 0, b"Hello")
    assert model.take_effects() == [HostOutput(b"Hello")]
