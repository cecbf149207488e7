"""The virtio console: output of any length, input as there is room, and snapshots."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import Chain, ChainRead, ChainUsed, ChainWrite
from kvmbox.contract.model import DONE, Effect, HostOutput, InputRoom, SnapshotError
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.console import INPUT, MOST_INPUT, MOST_OUTPUT, OUTPUT, READ_SIZE, VirtioConsole
from tests.unit.devices.virtio.test_mmio import accept, publish


def console() -> VirtioConsole:
    model = VirtioConsole()
    accept(model, mmio.F_VERSION_1)
    for index in (INPUT, OUTPUT):
        publish(model, index)
    model.write(0, mmio.STATUS, 4, 15)
    model.take_effects()
    return model


def give(model: VirtioConsole, index: int, *chains: Chain) -> list[Effect]:
    model.chains(0, index, list(chains), DONE)
    return model.take_effects()


def test_short_output_is_printed_from_the_head() -> None:
    effects = give(console(), OUTPUT, Chain(1, 3, 0, b"abc"), Chain(2, 0, 0, b""), Chain(3, 1, 0, b"d"))

    assert effects == [
        *(HostOutput(b"abc"), ChainUsed(1, 0)),
        *(ChainUsed(2, 0), HostOutput(b"d"), ChainUsed(3, 0)),
    ]


def test_long_output_is_read_piece_by_piece() -> None:
    model = console()
    text = bytes(range(256)) * 20
    effects = give(model, OUTPUT, Chain(1, len(text), 0, text[:32]))
    printed = b""
    while not isinstance(effects[-1], ChainUsed):
        head, question = effects
        assert isinstance(head, HostOutput)
        assert isinstance(question, ChainRead)
        printed += head.data
        assert question == ChainRead(1, len(printed), min(READ_SIZE, len(text) - len(printed)))
        model.memory(0, 1, text[question.skip : question.skip + question.size])
        effects = model.take_effects()
    assert isinstance(effects[0], HostOutput)
    assert printed + effects[0].data == text


def test_output_longer_than_any_driver_makes_needs_a_reset() -> None:
    model = console()
    give(model, OUTPUT, Chain(1, MOST_OUTPUT + 1, 0, bytes(32)))

    assert model.read(0, mmio.STATUS, 4) & mmio.NEEDS_RESET


def test_input_fills_chains_in_order() -> None:
    model = console()
    assert give(model, INPUT, Chain(1, 0, 2, b""), Chain(2, 0, 8, b"")) == []

    assert model.receive(0, b"abc") == 3
    assert model.take_effects() == [
        *(ChainWrite(1, 0, b"ab"), ChainUsed(1, 2)),
        *(ChainWrite(2, 0, b"c"), ChainUsed(2, 1)),
    ]


def test_input_without_room_waits_and_room_is_told_once() -> None:
    model = console()
    assert model.receive(0, b"abc") == 0
    assert model.take_effects() == []

    assert give(model, INPUT, Chain(1, 0, 2, b"")) == [InputRoom(2)]
    assert give(model, INPUT, Chain(2, 0, 4, b"")) == []
    assert model.receive(0, b"abc") == 3


def test_more_input_than_fits_in_a_frame_is_taken_in_parts() -> None:
    model = console()
    give(model, INPUT, Chain(1, 0, 1 << 20, b""), Chain(2, 0, 1 << 20, b""))

    assert model.receive(0, bytes(4064)) == MOST_INPUT
    assert model.take_effects()[-1] == InputRoom(MOST_INPUT)


def test_chain_for_input_without_room_comes_back() -> None:
    assert give(console(), INPUT, Chain(1, 8, 0, b"12345678")) == [ChainUsed(1, 0)]


def test_snapshot_goes_on_in_the_middle_of_output_and_input() -> None:
    model, copy = console(), VirtioConsole()
    model.receive(0, b"x")
    give(model, OUTPUT, Chain(1, 40, 0, bytes(32)))

    copy.restore(model.snapshot())
    copy.memory(0, 1, bytes(8))
    assert copy.take_effects() == [HostOutput(bytes(8)), ChainUsed(1, 0)]
    assert give(copy, INPUT, Chain(2, 0, 5, b"")) == [InputRoom(5)]


def test_chains_that_cannot_be_are_refused_in_a_snapshot() -> None:
    model = console()
    give(model, OUTPUT, Chain(1, 40, 0, bytes(32)))
    state = model.snapshot()

    for place, value in ((-1, 1), (-4, 40), (-13, 3)):
        bad = bytearray(state)
        bad[place] = value
        with pytest.raises(SnapshotError):
            model.restore(bytes(bad))
    with pytest.raises(SnapshotError, match="twice"):
        model.restore(state + state[-12:])
    assert model.snapshot() == state
