"""The virtio network device: how it connects its queues to the wire, by what the driver has accepted."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import Chain, ChainUsed, Connect, Walk
from kvmbox.contract.model import BAD_ADDRESS, DONE, Effect, SnapshotError
from kvmbox.devices.virtio import mmio
from kvmbox.devices.virtio.net import F_MRG_RXBUF, MOST_CHAINS, RECEIVED, SENT, VirtioNet
from kvmbox.devices.virtio.pci import VirtioNetPci
from kvmbox.devices.virtio.registers import LEGACY
from tests.unit.devices.virtio.test_mmio import accept, publish

MAC = bytes.fromhex("026b76000001")


def net() -> VirtioNet:
    return VirtioNet(mac=MAC)


def connections(effects: list[Effect]) -> list[Connect]:
    """Each of them is behind the wish for the chains of its queue."""
    found = [number for number, effect in enumerate(effects) if isinstance(effect, Connect)]
    for number in found:
        wish, connection = effects[number - 1], effects[number]
        assert isinstance(wish, Walk)
        assert isinstance(connection, Connect)
        assert (wish.index, wish.count > 0) == (connection.index, True)
    return [effect for effect in effects if isinstance(effect, Connect)]


def started(model: VirtioNet, features: int = 0) -> list[Connect]:
    accept(model, mmio.F_VERSION_1 | features)
    for index in (RECEIVED, SENT):
        publish(model, index)
    assert connections(model.take_effects()) == []
    model.write(0, mmio.STATUS, 4, 15)
    return connections(model.take_effects())


def test_configuration_has_the_address_and_a_link() -> None:
    model = net()

    assert bytes(model.read(0, mmio.CONFIG + place, 1) for place in range(8)) == MAC + b"\1\0"


def test_queues_are_connected_when_the_driver_runs() -> None:
    assert started(net()) == [Connect(RECEIVED, 1, 0, 12, 10, 1), Connect(SENT, 0, 0, 12, 0, 1)]


def test_frames_go_over_several_chains_if_the_driver_can_that() -> None:
    assert started(net(), F_MRG_RXBUF)[0] == Connect(RECEIVED, 1, 0, 12, 10, MOST_CHAINS)


@pytest.mark.parametrize(
    ("features", "header", "count_at", "chains"), [(0, 10, 0, 1), (F_MRG_RXBUF, 12, 10, MOST_CHAINS)]
)
def test_legacy_header_has_a_count_only_for_several_chains(
    features: int, header: int, count_at: int, chains: int
) -> None:
    model = VirtioNetPci(mac=MAC)
    model.write(0, LEGACY + 4, 4, features)
    model.write(0, LEGACY + 8, 4, 0x10)
    model.write(0, LEGACY + 0x12, 1, 7)

    found = connections(model.take_effects())
    assert found == [Connect(RECEIVED, 1, 0, header, count_at, chains)]


def test_queue_that_is_published_while_the_driver_runs_is_connected() -> None:
    model = net()
    accept(model, mmio.F_VERSION_1)
    model.write(0, mmio.STATUS, 4, 15)
    publish(model, SENT)

    assert connections(model.take_effects()) == [Connect(SENT, 0, 0, 12, 0, 1)]


def test_queue_that_is_none_needs_a_reset_and_connects_nothing() -> None:
    model = net()
    started(model)
    model.chains(0, RECEIVED, [], BAD_ADDRESS)

    assert model.read(0, mmio.STATUS, 4) & mmio.NEEDS_RESET
    assert connections(model.take_effects()) == []


def test_chain_that_comes_all_the_same_goes_back() -> None:
    model = net()
    started(model)
    model.chains(0, SENT, [Chain(1, 72, 0, bytes(32))], DONE)

    assert model.take_effects() == [ChainUsed(1, 0)]


def test_snapshot_of_another_version_is_refused() -> None:
    model, other = net(), net()
    started(model)
    other.restore(model.snapshot())

    assert other.snapshot() == model.snapshot()
    with pytest.raises(SnapshotError):
        other.restore(b"VNT\x02" + model.snapshot()[4:])
