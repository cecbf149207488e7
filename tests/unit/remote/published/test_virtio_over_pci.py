"""Queues of devices over PCI: where they are, the VMM has from the guest's writes to other registers."""

from __future__ import annotations

from functools import partial

import pytest

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.pci_function import PlacedFunction
from kvmbox.contract.pci_grants import Intx, PciBus
from kvmbox.devices.virtio.board import virtio_rng
from kvmbox.devices.virtio.pci_functions import on_pci
from kvmbox.devices.virtio.registers import COMMON, ISR, LEGACY, NOTIFY
from kvmbox.remote.bus.movable import MovingBus
from kvmbox.remote.bus.pci_fabric import PciFabric
from tests.support.halves import Half
from tests.support.virtio_driver import Driver
from tests.support.virtio_rig import VirtioRig

MODERN, LEGACY_SIZE = 16, 256


class Random:
    """A medium of which each byte is 0x5a."""

    writes_now = True

    def read(self, _offset: int, size: int) -> bytes:
        return b"\x5a" * size

    read_now = read


class PciRig(VirtioRig):
    """An entropy device as a function."""

    def __init__(self, half: Half) -> None:
        bus = PciBus((PlacedFunction(3 << 3, virtio_rng().name),))
        ports, mmio = MovingBus(16), MovingBus(52)
        fabric = PciFabric(
            bus, ports, mmio, GuestMemory(1 << 20), lambda _gsi: lambda _level, _coalesced: None
        )
        super().__init__(on_pci(virtio_rng()), Random(), half=half, fabric=fabric)

    def run(self, driver: Driver, notify: int) -> bytes:
        """What a request for 8 bytes brings."""
        driver.chain((0x8000, 8, 2))
        driver.offer(0)
        self.write(notify, 0, size=2)
        self.do_errands()
        return bytes(self.memory.data[0x8000:0x8008])

    def modern(self) -> Driver:
        driver = Driver(self.memory, MODERN)
        self.write(COMMON + 0x14, 0, size=1)
        self.write(COMMON + 0x14, 3, size=1)
        self.write(COMMON + 0x08, 1)
        self.write(COMMON + 0x0C, 1)
        self.write(COMMON + 0x14, 11, size=1)
        self.write(COMMON + 0x16, 0, size=2)
        self.write(COMMON + 0x18, MODERN, size=2)
        for number, area in enumerate(driver.areas):
            self.write(COMMON + 0x20 + 8 * number, area)
            self.write(COMMON + 0x24 + 8 * number, 0)
        self.write(COMMON + 0x1C, 1, size=2)
        self.write(COMMON + 0x14, 15, size=1)
        return driver

    def legacy(self) -> Driver:
        driver = Driver(self.memory, LEGACY_SIZE, 0x10000)
        driver.used = 0x12000
        self.write(LEGACY + 0x12, 0, size=1)
        self.write(LEGACY + 0x12, 3, size=1)
        self.write(LEGACY + 0x0E, 0, size=2)
        self.write(LEGACY + 0x08, 0x10)
        self.write(LEGACY + 0x12, 7, size=1)
        return driver


@pytest.fixture
def rig(half: Half) -> PciRig:
    return PciRig(half)


def test_modern_driver_is_served(rig: PciRig) -> None:
    assert Intx() in rig.spec.grants
    assert rig.run(rig.modern(), NOTIFY) == b"\x5a" * 8


def test_legacy_driver_is_served(rig: PciRig) -> None:
    assert rig.run(rig.legacy(), LEGACY + 0x10) == b"\x5a" * 8


@pytest.mark.parametrize(("is_legacy", "register"), [(False, ISR), (True, LEGACY + 0x13)])
def test_reading_what_the_interrupt_is_for_acknowledges_it(
    rig: PciRig, is_legacy: bool, register: int
) -> None:
    rig.run(rig.legacy(), LEGACY + 0x10) if is_legacy else rig.run(rig.modern(), NOTIFY)
    assert rig.queues.interrupts.status == 1
    assert [rig.proxy.read(register, 1) for _ in range(2)] == [1, 0]


def test_queue_has_its_first_size_if_the_driver_says_none(rig: PciRig) -> None:
    assert rig.queues.grant.initial_size == 256


@pytest.mark.parametrize(
    ("register", "size", "legacy"),
    [(COMMON + 0x14, 1, False), (LEGACY + 0x12, 1, True), (LEGACY + 0x08, 4, True)],
)
def test_queue_that_is_taken_back_is_out_of_reach_at_once(
    rig: PciRig, register: int, size: int, legacy: bool
) -> None:
    driver = rig.legacy() if legacy else rig.modern()
    rig.channel.serve(partial(rig.queues.note, register, 0, size))  # the device has not seen it yet
    assert rig.run(driver, LEGACY + 0x10 if legacy else NOTIFY) == bytes(8)


def test_register_of_another_size_is_not_noted(rig: PciRig) -> None:
    rig.modern()
    state = rig.queues.state()
    for register, sizes in ((0x14, (2, 4)), (0x16, (1, 4)), (0x1C, (1, 4)), (0x20, (1, 2))):
        for size in sizes:
            rig.proxy.write(COMMON + register, size, 0)
    assert rig.queues.state() == state
