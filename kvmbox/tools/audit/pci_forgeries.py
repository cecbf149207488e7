"""What a taken-over process of PCI asks for, and buses with what it must not displace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kvmbox import layout
from kvmbox.board import AddressRange, DeviceSpec, Medium
from kvmbox.board_extras import virtio_blk
from kvmbox.board_pci import FIRST_SLOT, with_pci
from kvmbox.board_virtio_pci import on_pci
from kvmbox.devices.model import Effect
from kvmbox.devices.pci_effects import Decode, Message, Route
from kvmbox.memory import GuestMemory
from kvmbox.remote.buses import Buses

PROTECTED: Final = (0x4000, layout.LOCAL_APIC_BASE, layout.VIRTIO_BASE)
"""Guest memory, the local APIC, and another device."""

_DISK: Final = virtio_blk(0, Medium("disk0", layout.SECTOR_SIZE))
_FUNCTION: Final = FIRST_SLOT << 3
_BAR: Final = 4
_BAR_SIZE: Final = 4 * layout.PAGE_SIZE


def _placed(address: int) -> Decode:
    return Decode(_FUNCTION, _BAR, address & -_BAR_SIZE, 1)


OF_PCI: Final[Mapping[str, Effect]] = {
    "bar-over-memory": _placed(PROTECTED[0]),
    "bar-over-apic": _placed(PROTECTED[1]),
    "bar-over-device": _placed(PROTECTED[2]),
    "bar-not-granted": Decode(_FUNCTION, 3, layout.PCI_MEMORY, 1),
    "pirq-over-timer": Route(0, layout.PIT_IRQ, 1),
    "message-forged": Message(0, layout.LOCAL_APIC_BASE, 0x41, 1),
}
"""By the names of their probes."""


class Silent:
    """A device on the bus that nobody asks for anything."""

    natural_sizes: frozenset[int] = frozenset()

    def read(self, offset: int, size: int) -> int:
        """See BusDevice."""
        del offset, size
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """See BusDevice."""


def pci_device() -> DeviceSpec:
    """The device with the configuration spaces, one of which is a disk's."""
    return with_pci([on_pci(_DISK)])[-1]


def crowded_buses(
    devices: Sequence[DeviceSpec],
    ram: GuestMemory,
    irq_source: Callable[[int], Callable[[int, int], None]],
    note: Callable[[str], None],
) -> Buses:
    """Buses on which another device is, and the function of the disk if there is PCI."""
    buses = Buses(devices, ram, irq_source, note)
    other = DeviceSpec("other", "", "", mmio=(AddressRange(layout.VIRTIO_BASE, layout.VIRTIO_SIZE),))
    buses.attach(other, Silent(), None)
    if buses.fabric is not None:
        buses.fabric.connect(_DISK.name, Silent(), None)
    return buses


def placed(buses: Buses) -> bytes:
    """What is at the protected places: where it begins, or nothing."""
    found = [buses.mmio.find(place) for place in PROTECTED]
    return b"".join(b"-" if one is None else one.first.to_bytes(8, "little") for one in found)
