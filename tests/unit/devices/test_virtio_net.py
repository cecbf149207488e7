"""The virtio network device: frames to and from chains, as many as there are chains for, and snapshots."""

from __future__ import annotations

import struct

import pytest

from kvmbox.devices import virtio_mmio as mmio
from kvmbox.devices.media import Chain, ChainTransfer, ChainUsed, ChainWrite
from kvmbox.devices.model import DONE, Effect, InputRoom, SnapshotError
from kvmbox.devices.virtio_net import F_MRG_RXBUF, MOST_CHAINS, RECEIVED, SENT, VirtioNet
from tests.unit.devices.test_virtio_mmio import accept, publish

MAC = bytes.fromhex("026b76000001")
HEADER = 12


def net(features: int = 0) -> VirtioNet:
    model = VirtioNet(mac=MAC)
    accept(model, mmio.F_VERSION_1 | features)
    for index in (RECEIVED, SENT):
        publish(model, index)
    model.write(0, mmio.STATUS, 4, 15)
    model.take_effects()
    return model


def give(model: VirtioNet, index: int, *chains: Chain) -> list[Effect]:
    model.chains(0, index, list(chains), DONE)
    return model.take_effects()


def buffers(*sizes: int) -> list[Chain]:
    return [Chain(handle, 0, size, b"") for handle, size in enumerate(sizes, 1)]


def offer(model: VirtioNet, *lengths: int) -> tuple[int, list[Effect]]:
    """How many frames were accepted, and what is to be done."""
    accepted = model.receive(0, struct.pack(f"<{len(lengths)}H", *lengths))
    return accepted // 2, model.take_effects()


def header(chains: int) -> bytes:
    return bytes(10) + bytes((chains, 0))


def test_configuration_has_the_address_and_a_link() -> None:
    model = net()

    assert bytes(model.read(0, mmio.CONFIG + place, 1) for place in range(8)) == MAC + b"\1\0"


def test_sent_frame_is_moved_and_its_chain_goes_back() -> None:
    effects = give(net(), SENT, Chain(1, HEADER + 60, 0, bytes(32)))

    assert effects == [ChainTransfer(1, 0, 0, HEADER, 60, 0), ChainUsed(1, 0)]


@pytest.mark.parametrize("size", [0, HEADER, HEADER + 13, HEADER + 1519])
def test_what_is_no_frame_is_not_sent(size: int) -> None:
    assert give(net(), SENT, Chain(1, size, 0, b"")) == [ChainUsed(1, 0)]


def test_received_frame_is_behind_its_header() -> None:
    model = net()
    assert give(model, RECEIVED, *buffers(1526, 1526)) == [InputRoom(2)]

    accepted, effects = offer(model, 60, 1514)
    assert accepted == 2
    assert effects == [
        *(ChainWrite(1, 0, header(1)), ChainTransfer(1, 0, 0, HEADER, 60, 1), ChainUsed(1, 72)),
        *(ChainWrite(2, 0, header(1)), ChainTransfer(2, 0, 1 << 16, HEADER, 1514, 1), ChainUsed(2, 1526)),
    ]


def test_frames_without_chains_wait_until_there_are_some() -> None:
    model = net()
    assert offer(model, 60) == (0, [])
    assert give(model, RECEIVED, *buffers(1526)) == [InputRoom(1)]

    accepted, _ = offer(model, 60, 60)
    assert accepted == 1
    assert give(model, RECEIVED, Chain(9, 0, 1526, b"")) == [InputRoom(1)]
    assert offer(model, 60)[0] == 1


def test_room_is_not_told_while_frames_find_some() -> None:
    model = net()
    give(model, RECEIVED, *buffers(1526, 1526))
    assert offer(model, 60)[0] == 1

    assert give(model, RECEIVED, Chain(9, 0, 1526, b"")) == []


def test_frame_goes_over_several_chains_if_the_driver_can_that() -> None:
    model = net(F_MRG_RXBUF)
    give(model, RECEIVED, *buffers(100, 100, 100))

    accepted, effects = offer(model, 180)
    assert accepted == 1
    assert effects == [
        *(ChainWrite(1, 0, header(2)), ChainTransfer(1, 0, 0, HEADER, 88, 1), ChainUsed(1, 100)),
        *(ChainTransfer(2, 0, 88, 0, 92, 1), ChainUsed(2, 92)),
    ]


def test_frame_for_more_chains_than_there_are_waits_for_them() -> None:
    model = net(F_MRG_RXBUF)
    give(model, RECEIVED, *buffers(100))
    assert offer(model, 180) == (0, [])

    assert give(model, RECEIVED, Chain(2, 0, 100, b"")) == [InputRoom(2)]
    assert offer(model, 180)[0] == 1


def test_frame_that_does_not_fit_is_lost_and_the_chain_stays() -> None:
    model = net()
    give(model, RECEIVED, *buffers(100))

    assert offer(model, 180) == (1, [])
    assert offer(model, 80)[1][-1] == ChainUsed(1, 92)


def test_frame_for_too_many_chains_is_lost() -> None:
    model = net(F_MRG_RXBUF)
    give(model, RECEIVED, *buffers(*[20] * (MOST_CHAINS + 8)))

    assert offer(model, 1514) == (1, [])


def test_one_request_takes_as_many_frames_as_a_reply_has_room_for() -> None:
    model = net()
    give(model, RECEIVED, *buffers(*[1526] * 16))

    accepted, effects = offer(model, *[60] * 16)
    assert accepted == 9
    assert effects[-1] == InputRoom(7)
    assert offer(model, *[60] * 7)[0] == 7


def test_no_room_is_told_when_the_last_chain_of_a_full_reply_was_used() -> None:
    model = net()
    give(model, RECEIVED, *buffers(*[1526] * 9))

    accepted, effects = offer(model, *[60] * 10)
    assert accepted == 9
    assert not any(isinstance(effect, InputRoom) for effect in effects)
    assert give(model, RECEIVED, Chain(10, 0, 1526, b"")) == [InputRoom(1)]


def test_chain_without_room_for_a_frame_goes_back() -> None:
    assert give(net(), RECEIVED, *buffers(HEADER)) == [ChainUsed(1, 0)]


def test_snapshot_has_the_chains_that_wait() -> None:
    model = net()
    give(model, RECEIVED, *buffers(1526, 1526))
    other = VirtioNet(mac=MAC)

    other.restore(model.snapshot())
    assert other.snapshot() == model.snapshot()
    assert offer(other, 60) == offer(model, 60)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state[:-1],
        lambda state: state + bytes(8),
        lambda state: state[:-8] + state[-16:-8],
        lambda state: state[:-4] + bytes(4),
    ],
)
def test_snapshot_that_cannot_be_is_refused(change: object) -> None:
    model = net()
    give(model, RECEIVED, *buffers(1526, 1526))
    before = model.snapshot()
    assert callable(change)

    with pytest.raises(SnapshotError):
        model.restore(change(before))
    assert model.snapshot() == before
