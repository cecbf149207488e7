"""The registers of virtio devices over PCI (VIRTIO 1.2, 4.1), and the legacy ones (4.1.4.8)."""

from __future__ import annotations

import struct

import pytest

from kvmbox.contract.bulk_data import EVENT_INDEX, Chain, ChainUsed, ConfigChanged, Queue, Walk
from kvmbox.contract.model import BAD_ADDRESS, DONE, SnapshotError
from kvmbox.contract.pci_effects import Message
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.pci import VirtioBlkPci, VirtioConsolePci, VirtioPci, VirtioRngPci
from kvmbox.devices.virtio.registers import COMMON, CONFIG, LEGACY, PBA, TABLE

NO_VECTOR = 0xFFFF
APIC = 0xFEE0_0000


def accept(model: VirtioPci, features: int = mmio.F_VERSION_1) -> None:
    model.write(0, COMMON + 0x14, 1, 3)
    for half in (0, 1):
        model.write(0, COMMON + 0x08, 4, half)
        model.write(0, COMMON + 0x0C, 4, features >> 32 * half & 0xFFFF_FFFF)
    model.write(0, COMMON + 0x14, 1, 11)


def publish(model: VirtioPci, index: int = 0, size: int = 8) -> None:
    model.write(0, COMMON + 0x16, 2, index)
    model.write(0, COMMON + 0x18, 2, size)
    for number in range(3):
        model.write(0, COMMON + 0x20 + 8 * number, 4, 0x1000 * (number + 1))
        model.write(0, COMMON + 0x24 + 8 * number, 4, 2)
    model.write(0, COMMON + 0x1C, 2, 1)


def started(model: VirtioPci | None = None) -> VirtioPci:
    model = model or VirtioRngPci()
    accept(model)
    publish(model)
    model.write(0, COMMON + 0x14, 1, 15)
    model.take_effects()
    return model


# --- The common structure --------------------------------------------------------------------------------


def test_common_structure_says_what_there_is() -> None:
    model = VirtioConsolePci()
    assert model.read(0, COMMON + 0x12, 2) == 2
    assert model.read(0, COMMON + 0x18, 2) == 256
    model.write(0, COMMON, 4, 1)
    assert model.read(0, COMMON + 0x04, 4) == 1
    model.write(0, COMMON, 4, 2)
    assert model.read(0, COMMON + 0x04, 4) == 0
    model.write(0, COMMON + 0x16, 2, 1)
    assert model.read(0, COMMON + 0x1E, 2) == 1
    model.write(0, COMMON + 0x16, 2, 2)
    assert [model.read(0, COMMON + place, 2) for place in (0x18, 0x1A, 0x1C)] == [0, NO_VECTOR, 0]


def test_queue_is_published_as_it_was_written() -> None:
    model = VirtioRngPci()
    accept(model, mmio.F_VERSION_1 | mmio.F_EVENT_IDX)
    model.take_effects()
    publish(model)
    areas = (0x2_0000_1000, 0x2_0000_2000, 0x2_0000_3000)
    assert model.take_effects() == [Queue(0, 8, EVENT_INDEX, *areas)]
    assert [model.read(0, COMMON + 0x20 + 4 * half, 4) for half in (0, 1)] == [0x1000, 2]
    assert model.read(0, COMMON + 0x1C, 2) == 1
    publish(model, size=16)
    assert model.take_effects() == []
    assert model.read(0, COMMON + 0x18, 2) == 8


def test_queue_without_features_is_none() -> None:
    model = VirtioRngPci()
    publish(model)
    assert model.take_effects() == []


def test_reset_by_the_driver_takes_the_queues_and_vectors_back() -> None:
    model = started()
    model.write(0, COMMON + 0x1A, 2, 1)
    model.take_effects()
    model.write(0, COMMON + 0x14, 1, 0)
    assert model.take_effects() == [Queue(0, 0, 0, 0, 0, 0)]
    assert model.read(0, COMMON + 0x14, 1) == 0
    assert [model.read(0, COMMON + place, 2) for place in (0x18, 0x1A)] == [256, NO_VECTOR]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_configuration_of_the_device_may_be_read_with_any_size(size: int) -> None:
    model = VirtioBlkPci(sectors=0x0102_0304)
    assert model.read(0, CONFIG, size) == 0x0102_0304 & (1 << 8 * size) - 1
    assert model.read(0, CONFIG + 60, size) == (1 << 8 * size) - 1


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_any_access_anywhere_is_survived(size: int) -> None:
    for model in (VirtioBlkPci(sectors=8), VirtioRngPci(), VirtioConsolePci()):
        for offset in range(0x1000):
            for value in (0, 1, (1 << 8 * size) - 1):
                model.write(0, offset, size, value)
            assert 0 <= model.read(0, offset, size) < 1 << 8 * size
        model.take_effects()
        other = type(model)(sectors=8) if isinstance(model, VirtioBlkPci) else type(model)()
        other.restore(model.snapshot())
        assert other.snapshot() == model.snapshot()


# --- Interrupts ------------------------------------------------------------------------------------------


def test_used_buffer_interrupts_by_the_pin_or_by_its_vector() -> None:
    model = VirtioRngPci()
    accept(model)
    publish(model)
    model.write(0, COMMON + 0x1A, 2, 0)
    model.take_effects()
    model.write(0, COMMON + 0x14, 1, 15)
    assert model.take_effects() == [Walk(0, mmio.BATCH, 1)]
    for vector, pin in ((1, 2), (NO_VECTOR, 0)):
        model.write(0, COMMON + 0x1A, 2, vector)
        assert model.read(0, COMMON + 0x1A, 2) == vector
        assert model.take_effects() == [Walk(0, mmio.BATCH, pin)]
    model.chains(0, 0, [Chain(1, 0, 0, b"")], DONE)
    assert model.take_effects() == [ChainUsed(1, 0)]


def test_broken_queue_interrupts_by_the_vector_of_the_configuration() -> None:
    model = started()
    model.write(0, COMMON + 0x10, 2, 0)
    model.chains(0, 0, [], BAD_ADDRESS)
    assert model.take_effects() == [ConfigChanged(1), Walk(0, 0)]
    assert model.read(0, COMMON + 0x14, 1) & mmio.NEEDS_RESET


@pytest.mark.parametrize("vector", [2, 0x7FF, NO_VECTOR])
def test_vector_that_there_is_not_is_not_taken(vector: int) -> None:
    model = started()
    for place in (0x10, 0x1A):
        model.write(0, COMMON + place, 2, 1)
        model.write(0, COMMON + place, 2, vector)
        assert model.read(0, COMMON + place, 2) == NO_VECTOR


def test_table_is_told_when_a_vector_can_be_sent() -> None:
    model = VirtioRngPci()
    assert [model.read(0, TABLE + 16 + place, 4) for place in (0, 4, 8, 12)] == [0, 0, 0, 1]
    for place, value in ((0, APIC), (8, 0x41)):
        model.write(0, TABLE + 16 + place, 4, value)
    assert model.take_effects() == []
    model.write(0, TABLE + 28, 4, 0)
    assert model.take_effects() == [Message(2, APIC, 0x41, 1)]
    model.write(0, TABLE + 24, 4, 0x42)
    assert model.take_effects() == [Message(2, APIC, 0x42, 1)]
    model.write(0, TABLE + 28, 4, 1)
    assert model.take_effects() == [Message(2, 0, 0, 0)]
    assert model.read(0, TABLE + 16, 4) == APIC
    assert model.read(0, PBA, 4) == 0


def test_table_survives_a_reset_by_the_driver_and_none_of_the_machine() -> None:
    model = VirtioRngPci()
    model.write(0, TABLE, 4, APIC)
    model.write(0, COMMON + 0x14, 1, 0)
    assert model.read(0, TABLE, 4) == APIC
    model.reset(0)
    assert model.read(0, TABLE, 4) == 0


# --- The legacy interface --------------------------------------------------------------------------------


def test_legacy_driver_gives_a_page() -> None:
    model = VirtioRngPci()
    model.write(0, LEGACY + 0x12, 1, 3)
    assert model.read(0, LEGACY, 4) == mmio.F_INDIRECT_DESC | mmio.F_EVENT_IDX
    model.write(0, LEGACY + 0x04, 4, mmio.F_EVENT_IDX | 1)
    assert model.read(0, LEGACY + 0x04, 4) == mmio.F_EVENT_IDX
    model.write(0, LEGACY + 0x0E, 2, 0)
    assert model.read(0, LEGACY + 0x0C, 2) == 256
    model.write(0, LEGACY + 0x08, 4, 0x10)
    # 2.7.2: 16 bytes for each of 256, then 6 and 2 for each, then the next page.
    assert model.take_effects() == [Queue(0, 256, EVENT_INDEX, 0x10000, 0x11000, 0x12000)]
    assert model.read(0, LEGACY + 0x08, 4) == 0x10
    model.write(0, LEGACY + 0x12, 1, 7)
    assert model.take_effects() == [Walk(0, mmio.BATCH)]
    model.chains(0, 0, [Chain(1, 0, 0, b"")], DONE)
    assert model.take_effects() == [ChainUsed(1, 0)]
    model.write(0, LEGACY + 0x08, 4, 0)
    assert model.take_effects() == [Queue(0, 0, 0, 0, 0, 0)]


def test_legacy_driver_resets() -> None:
    model = VirtioRngPci()
    model.write(0, LEGACY + 0x12, 1, 7)
    model.write(0, LEGACY + 0x08, 4, 0x10)
    model.take_effects()
    model.write(0, LEGACY + 0x12, 1, 0)
    assert model.take_effects() == [Queue(0, 0, 0, 0, 0, 0)]
    assert [model.read(0, LEGACY + place, size) for place, size in ((0x12, 1), (0x08, 4))] == [0, 0]


def test_legacy_driver_that_stops_wants_no_chains() -> None:
    model = VirtioRngPci()
    model.write(0, LEGACY + 0x12, 1, 7)
    assert model.take_effects() == []  # there is no queue yet
    model.write(0, LEGACY + 0x12, 1, 3)
    assert model.take_effects() == [Walk(0, 0)]


def test_legacy_driver_has_vectors() -> None:
    model = VirtioRngPci()
    model.write(0, LEGACY + 0x14, 2, 0)
    model.write(0, LEGACY + 0x16, 2, 1)
    assert [model.read(0, LEGACY + place, 2) for place in (0x14, 0x16)] == [0, 1]
    assert [model.read(0, COMMON + place, 2) for place in (0x10, 0x1A)] == [0, 1]


# --- State -----------------------------------------------------------------------------------------------


def test_snapshot_has_vectors_and_their_table() -> None:
    model = started()
    model.write(0, COMMON + 0x1A, 2, 1)
    model.write(0, TABLE + 16, 4, APIC)
    other = VirtioRngPci()
    other.restore(model.snapshot())
    assert other.snapshot() == model.snapshot()
    assert other.read(0, COMMON + 0x1A, 2) == 1
    other.write(0, COMMON + 0x1C, 2, 1)
    assert other.take_effects() == []


def test_restore_refuses_what_is_none() -> None:
    model = started()
    good = model.snapshot()
    vector = good[:4] + b"\x07\x00" + good[6:]
    size = good.rindex(struct.pack("<IB", 8, 1))
    for bad in (
        b"",
        good[:4],
        good[:-1],
        good + b"\0",
        b"XXXX" + good[4:],
        vector,
        good[: size + 2] + b"\1" + good[size + 3 :],  # more entries than 16 bits can say
        good[:40] + b"X" + good[41:],
    ):
        with pytest.raises(SnapshotError):
            model.restore(bad)
        assert model.snapshot() == good


# --- The network -----------------------------------------------------------------------------------------


def test_features_stay_while_a_queue_is_live() -> None:
    """What a chain looks like depends on them."""
    model = VirtioRngPci()
    model.write(0, LEGACY + 0x04, 4, mmio.F_EVENT_IDX)
    model.write(0, LEGACY + 0x0E, 2, 0)
    model.write(0, LEGACY + 0x08, 4, 0x10)
    model.write(0, LEGACY + 0x04, 4, 0)
    assert model.read(0, LEGACY + 0x04, 4) == mmio.F_EVENT_IDX
    model.write(0, LEGACY + 0x12, 1, 0)
    model.write(0, LEGACY + 0x04, 4, 0)
    assert model.read(0, LEGACY + 0x04, 4) == 0
