"""The two buses of a machine, and its PCI if it has any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.remote.bus.routing import Bus, BusDevice, DirectDevice, Mapping

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.remote.bus.pci_fabric import PciFabric

PORT_BITS: Final = 16
ADDRESS_BITS: Final = 52  # the most that an x86 physical address can have


class Buses:
    """See the module. `attach` puts devices on them."""

    def __init__(
        self,
        board: Sequence[DeviceSpec],
        ram: GuestMemory,
        irq_source: Callable[[int], Callable[[int, int], None]],
        note: Callable[[str], None] = lambda _line: None,
    ) -> None:
        """`irq_source` is that of `grants.Host`, `note` tells a person a line: for PCI."""
        self.ports, self.mmio = Bus(PORT_BITS), Bus(ADDRESS_BITS)
        self.fabric: PciFabric | None = None
        if any(device.model == "pci_host" for device in board):
            from kvmbox.contract.pci_grants import bus_of
            from kvmbox.remote.bus.movable import MovingBus
            from kvmbox.remote.bus.pci_fabric import PciFabric

            self.ports, self.mmio = ports, mmio = MovingBus(PORT_BITS), MovingBus(ADDRESS_BITS)
            self.fabric = PciFabric(bus_of(board), ports, mmio, ram, irq_source, note)

    @property
    def pci(self) -> PciFabric:
        """The PCI of a board that has it."""
        assert self.fabric is not None
        return self.fabric

    def attach(self, device: DeviceSpec, target: BusDevice, direct: DirectDevice | None) -> None:
        """`target` answers for `device`, and can be asked directly if it is `direct`, too."""
        for bus, ranges in ((self.ports, device.ports), (self.mmio, device.mmio)):
            for one in ranges:
                bus.attach(Mapping(one.first, one.count, target, one.offset, direct=direct))
        if self.fabric is not None:
            self.fabric.connect(device.name, target, direct)
