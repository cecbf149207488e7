"""A virtio device on the loops of both halves: what the guest writes of its queues is noted in each, and a
notification is one request.
"""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.contract.device_spec import Medium
from kvmbox.devices.virtio import board as virtio_board
from kvmbox.devices.virtio import mmio
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.bus.routing import Mapping
from kvmbox.wire import protocol
from tests.support.halves import Half, built_halves
from tests.support.loop_rig import Rig
from tests.support.scripted_vcpu import OUT
from tests.support.virtio_driver import WRITE, Driver, RealMemory
from tests.support.virtio_rig import READY, VirtioRig

HALVES: Final = built_halves()
PORT: Final = 0x1000
ROUNDS: Final = 3
CONTENT: Final = bytes((place * 7 + place // 256) & 0xFF for place in range(8 * 512))
HEADER, DATA, STATUS = 0x8000, 0x9000, 0x8800


@pytest.mark.parametrize("half", HALVES, ids=["pure", "compiled"][: len(HALVES)])
def test_queue_is_where_the_guest_says_and_a_notification_is_one_request(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = VirtioRig(virtio_board.virtio_blk(0, Medium("disk", len(CONTENT))), BytesStore(CONTENT), half=half)
    loop = Rig(half)
    loop.ports.attach(Mapping(PORT, 0x200, disk.proxy, direct=disk.proxy))

    def write(register: int, value: int, size: int = 4) -> None:
        loop.port(OUT, PORT + register, size=size, data=value.to_bytes(size, "little"))

    monkeypatch.setattr(disk, "write", write)
    for number in range(ROUNDS):
        driver = Driver(disk.memory, 8, 0x1000 * (number + 1))
        disk.memory.poke(HEADER + 16 * number, "IIQ", 0, 0, number)
        data = (DATA + 512 * number, 512, WRITE)
        driver.chain((HEADER + 16 * number, 16, 0), data, (STATUS, 1, WRITE))
        driver.offer(0)
        disk.negotiate()
        disk.publish(0, driver)
        disk.write(mmio.STATUS, READY)
        disk.notify()
    loop.play()

    assert disk.memory.data[DATA : DATA + 512 * ROUNDS] == CONTENT[: 512 * ROUNDS]
    assert disk.requests.count(protocol.CHAINS) == ROUNDS
    assert disk.requests[-1] == protocol.CHAINS


@pytest.mark.parametrize("half", HALVES, ids=["pure", "compiled"][: len(HALVES)])
def test_device_has_no_more_chains_than_it_may(half: Half) -> None:
    """The console keeps each chain for input. A guest offers 256, and notifies once."""
    memory = RealMemory(1 << 20)
    rig = VirtioRig(virtio_board.virtio_console(), half=half, memory=memory)
    driver = rig.start(size=256, queues=2)
    for number in range(256):
        driver.chain((0x10000 + 16 * number, 16, WRITE), first=number)
        driver.offer(number)
    rig.notify()
    most = rig.queues.grant.max_chains
    assert len(rig.queues._live) == most < 256
    rig.channel.request(protocol.SNAPSHOT, limit=1 << 20)
    memory.close()
