"""The registers of virtio devices over MMIO (VIRTIO 1.2, 4.2.2), and how queues become known and are lost."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import (
    EVENT_INDEX,
    INDIRECT,
    Chain,
    ChainTransfer,
    ChainUsed,
    ConfigChanged,
    Queue,
    Walk,
)
from kvmbox.contract.model import BAD_ADDRESS, DONE, SnapshotError
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.blk import VirtioBlk
from kvmbox.devices.virtio.console import VirtioConsole
from kvmbox.devices.virtio.net import VirtioNet
from kvmbox.devices.virtio.rng import VirtioRng

ALL = mmio.F_VERSION_1 | mmio.F_INDIRECT_DESC | mmio.F_EVENT_IDX
BEFORE_OK = mmio.ACKNOWLEDGE | mmio.DRIVER | mmio.FEATURES_OK
NO_QUEUE = Queue(0, 0, 0, 0, 0, 0)


def accept(model: mmio.VirtioMmio, features: int) -> int:
    """Accept features; the status then."""
    model.write(0, mmio.STATUS, 4, 3)
    for half in (0, 1):
        model.write(0, mmio.DRIVER_FEATURES_SEL, 4, half)
        model.write(0, mmio.DRIVER_FEATURES, 4, features >> 32 * half & 0xFFFF_FFFF)
    model.write(0, mmio.STATUS, 4, BEFORE_OK)
    return model.read(0, mmio.STATUS, 4)


def publish(model: mmio.VirtioMmio, index: int = 0, size: int = 8, base: int = 0x1_2345_6000) -> None:
    model.write(0, mmio.QUEUE_SEL, 4, index)
    model.write(0, mmio.QUEUE_NUM, 4, size)
    for number, register in enumerate((mmio.QUEUE_DESC, mmio.QUEUE_DRIVER, mmio.QUEUE_DEVICE)):
        model.write(0, register, 4, (base & 0xFFFF_FFFF) + 0x1000 * number)
        model.write(0, register + 4, 4, base >> 32)
    model.write(0, mmio.QUEUE_READY, 4, 1)


def started(features: int = ALL) -> VirtioRng:
    model = VirtioRng()
    accept(model, features)
    publish(model)
    model.write(0, mmio.STATUS, 4, BEFORE_OK | mmio.DRIVER_OK)
    model.take_effects()
    return model


def chains(count: int, first: int = 1) -> list[Chain]:
    return [Chain(handle, 0, 4, b"") for handle in range(first, first + count)]


@pytest.mark.parametrize(
    ("model", "number"),
    [(VirtioBlk(sectors=8), 2), (VirtioConsole(), 3), (VirtioRng(), 4), (VirtioNet(mac=bytes(6)), 1)],
)
def test_device_is_identified(model: mmio.VirtioMmio, number: int) -> None:
    read = [model.read(0, register, 4) for register in (mmio.MAGIC_VALUE, mmio.VERSION, mmio.DEVICE_ID)]

    assert read == [0x7472_6976, 2, number]
    assert model.read(0, mmio.QUEUE_NUM_MAX, 4) == 256
    model.write(0, mmio.QUEUE_SEL, 4, 7)
    assert model.read(0, mmio.QUEUE_NUM_MAX, 4) == 0


@pytest.mark.parametrize("size", [1, 2, 8])
def test_only_whole_registers_are_reached(size: int) -> None:
    model = started()
    before = model.snapshot()

    for offset in range(0, 0x200, size):
        model.write(0, offset, size, (1 << 64) - 1)
        assert model.read(0, offset, size) == (1 << 8 * size) - 1
    assert model.snapshot() == before
    assert model.take_effects() == []


def test_configuration_is_read_with_any_size_and_never_written() -> None:
    disk = VirtioBlk(sectors=0x1_0000_0203)

    assert [disk.read(0, mmio.CONFIG, size) for size in (1, 2, 4)] == [3, 0x203, 0x203]
    assert disk.read(0, mmio.CONFIG + 4, 4) == 1
    disk.write(0, mmio.CONFIG, 4, 0)
    assert disk.read(0, mmio.CONFIG, 4) == 0x203
    assert disk.read(0, mmio.CONFIG + 22, 4) == 0xFFFF_FFFF  # beyond its end
    assert disk.read(0, mmio.CONFIG_GENERATION, 4) == 0


def test_features_are_offered_by_halves() -> None:
    model = VirtioRng()
    halves = []
    for half in range(3):
        model.write(0, mmio.DEVICE_FEATURES_SEL, 4, half)
        halves.append(model.read(0, mmio.DEVICE_FEATURES, 4))

    assert halves == [ALL & 0xFFFF_FFFF, 1, 0]


@pytest.mark.parametrize(
    ("features", "good"),
    [(ALL, True), (mmio.F_VERSION_1, True), (0, False), (ALL | 1, False), (ALL & ~mmio.F_VERSION_1, False)],
)
def test_features_are_ok_if_offered_and_modern(features: int, good: bool) -> None:
    model = VirtioRng()

    status = accept(model, features)
    assert status == (BEFORE_OK if good else BEFORE_OK & ~mmio.FEATURES_OK)
    model.write(0, mmio.STATUS, 4, BEFORE_OK | mmio.DRIVER_OK)
    assert bool(model.read(0, mmio.STATUS, 4) & mmio.DRIVER_OK) is good


def test_features_are_settled_once_they_are_ok() -> None:
    model = VirtioRng()
    accept(model, mmio.F_VERSION_1)
    model.write(0, mmio.DRIVER_FEATURES_SEL, 4, 0)
    model.write(0, mmio.DRIVER_FEATURES, 4, mmio.F_EVENT_IDX)
    publish(model)

    assert [effect.flags for effect in model.take_effects() if isinstance(effect, Queue)] == [0]


@pytest.mark.parametrize(
    ("features", "flags"),
    [(0, 0), (mmio.F_EVENT_IDX, EVENT_INDEX), (mmio.F_INDIRECT_DESC, INDIRECT), (ALL, 3)],
)
def test_ready_queue_is_published_with_its_features_and_addresses(features: int, flags: int) -> None:
    model = VirtioRng()
    accept(model, features | mmio.F_VERSION_1)
    publish(model, size=8, base=0x1_2345_6000)

    assert model.take_effects() == [Queue(0, 8, flags, 0x1_2345_6000, 0x1_2345_7000, 0x1_2345_8000)]
    assert model.read(0, mmio.QUEUE_READY, 4) == 1


def test_queue_is_not_ready_before_features_are_ok_and_stays_in_its_place_when_it_is() -> None:
    model = VirtioRng()
    publish(model)
    assert model.take_effects() == []
    assert model.read(0, mmio.QUEUE_READY, 4) == 0

    model = started()
    before = model.snapshot()
    for register in (mmio.QUEUE_NUM, mmio.QUEUE_DESC, mmio.QUEUE_DRIVER + 4, mmio.QUEUE_READY):
        model.write(0, register, 4, 1)
    assert model.snapshot() == before
    assert model.take_effects() == []


def test_queue_that_is_not_ready_any_more_is_withdrawn() -> None:
    model = started()
    model.chains(0, 0, chains(1), DONE)
    model.take_effects()

    model.write(0, mmio.QUEUE_READY, 4, 0)
    assert model.take_effects() == [NO_QUEUE]
    model.complete(0, 1, DONE)
    model.chains(0, 0, chains(1), DONE)
    assert model.take_effects() == []


def test_status_zero_resets_the_device_and_withdraws_its_queues() -> None:
    model = started()
    model.chains(0, 0, chains(1), DONE)
    model.take_effects()

    model.write(0, mmio.STATUS, 4, 0)
    assert model.take_effects() == [NO_QUEUE]
    assert model.snapshot() == VirtioRng().snapshot()


def test_chains_are_wanted_of_each_queue_while_the_driver_runs() -> None:
    model = VirtioConsole()
    accept(model, ALL)
    publish(model, 1)
    assert not any(isinstance(effect, Walk) for effect in model.take_effects())
    model.write(0, mmio.STATUS, 4, BEFORE_OK | mmio.DRIVER_OK)
    assert model.take_effects() == [Walk(1, mmio.BATCH)]
    model.write(0, mmio.STATUS, 4, BEFORE_OK | mmio.DRIVER_OK)
    assert model.take_effects() == []

    publish(model, 0)
    assert model.take_effects()[1:] == [Walk(0, mmio.BATCH)]


def test_what_is_no_queue_makes_the_device_need_a_reset_and_says_so_once() -> None:
    model = started()
    model.chains(0, 0, [], BAD_ADDRESS)
    model.chains(0, 0, [], BAD_ADDRESS)

    assert model.read(0, mmio.STATUS, 4) == BEFORE_OK | mmio.DRIVER_OK | mmio.NEEDS_RESET
    assert model.take_effects() == [ConfigChanged(0), Walk(0, 0)]
    model.write(0, mmio.QUEUE_READY, 4, 0)
    model.write(0, mmio.QUEUE_READY, 4, 1)
    assert not any(isinstance(effect, Walk) for effect in model.take_effects())
    model.write(0, mmio.STATUS, 4, 0)
    assert model.read(0, mmio.STATUS, 4) == 0


def test_answer_that_was_not_asked_for_is_nobodys() -> None:
    model = started()
    before = model.snapshot()

    model.chains(0, 5, chains(3), DONE)
    model.complete(0, 1, DONE)
    model.memory(0, 1, b"x")
    assert model.take_effects() == []
    assert model.snapshot() == before


def test_snapshot_in_the_middle_of_a_chain_goes_on_alike() -> None:
    model, copy = started(), VirtioRng()
    model.chains(0, 0, chains(2), DONE)
    assert [type(effect) for effect in model.take_effects()] == [ChainTransfer] * 2

    copy.restore(model.snapshot())
    for one in (model, copy):
        one.complete(0, 2, DONE)
        assert one.take_effects() == [ChainUsed(2, 4)]
    assert model.snapshot() == copy.snapshot()


@pytest.mark.parametrize("model", [VirtioBlk(sectors=8), VirtioConsole(), VirtioRng()])
def test_malformed_snapshot_is_refused_without_effect(model: mmio.VirtioMmio) -> None:
    accept(model, ALL)
    publish(model)
    model.take_effects()
    good = model.snapshot()

    for bad in (b"", good[:-1], good + b"\0", b"XXX\x01" + good[4:], good[:29] + b"\xff" + good[30:]):
        with pytest.raises(SnapshotError):
            model.restore(bad)
        assert model.snapshot() == good
