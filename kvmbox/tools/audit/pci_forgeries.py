"""What taken-over processes of PCI and of an e1000 ask for, and buses with what must not be displaced.

The guest has published both rings of the e1000: one buffer to receive to, and one to send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import ChainTransfer, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Medium
from kvmbox.contract.model import Effect, MemoryRead
from kvmbox.contract.pci_effects import Decode, Message, Route
from kvmbox.devices.e1000 import model as e1000
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.pci.board import FIRST_SLOT, with_pci
from kvmbox.devices.virtio.board import virtio_blk
from kvmbox.devices.virtio.pci_functions import on_pci
from kvmbox.remote.bus.machine_buses import Buses

PROTECTED: Final = (0x4000, layout.LOCAL_APIC_BASE, layout.VIRTIO_BASE)
"""Guest memory, the local APIC, and another device."""

_DISK: Final = virtio_blk(0, Medium("disk0", layout.SECTOR_SIZE))
_FUNCTION: Final = FIRST_SLOT << 3
_BAR: Final = 4
_BAR_SIZE: Final = 4 * layout.PAGE_SIZE


def _placed(address: int) -> Decode:
    return Decode(_FUNCTION, _BAR, address & -_BAR_SIZE, 1)


# The formatter would give each cell a line of its own.
# fmt: off
OF_PCI: Final[Mapping[str, tuple[str, Effect]]] = {
    "bar-over-memory": ("put the registers of a PCI function over guest memory", _placed(PROTECTED[0])),
    "bar-over-apic": ("put the registers of a PCI function over the local APIC", _placed(PROTECTED[1])),
    "bar-over-device": ("put the registers of a PCI function over another device", _placed(PROTECTED[2])),
    "bar-not-granted": ("place registers that the function does not have",
        Decode(_FUNCTION, 3, layout.PCI_MEMORY, 1)),
    "pirq-over-timer": ("route a PCI interrupt to that of the timer", Route(0, layout.PIT_IRQ, 1)),
    "message-forged": ("have a message sent to a local APIC", Message(0, layout.LOCAL_APIC_BASE, 0x41, 1)),
}
# fmt: on
"""By the names of their probes, with what each tries."""

RING: Final = 8 * e1000.DESCRIPTOR_SIZE
"""Bytes of each ring, which is as small as one can be."""
_PUBLISH: Final = tuple(
    effect for index in range(2) for effect in (Queue(index, 8, 0, 0, 0, 0), Walk(index, 1))
)
_SENDS, _RECEIVES = 1, 2
"""The handles that the VMM gives: what was due last is walked first."""

# fmt: off
OF_E1000: Final[Mapping[str, tuple[str, Sequence[Sequence[Effect]]]]] = {
    "descriptor-memory-read": ("read guest memory, as an e1000", ((MemoryRead(1, [(PROTECTED[0], 64)]),),)),
    "descriptor-forged": ("write to a buffer by a handle that it made up, as an e1000",
        (_PUBLISH, (), (ChainWrite(77, 0, b"taken over"),))),
    "descriptor-read-only": ("write to a buffer that the guest wants sent",
        (_PUBLISH, (), (ChainWrite(_SENDS, 0, b"taken over"),))),
    "descriptor-write-beyond": ("write guest memory behind a buffer to receive to",
        (_PUBLISH, (), (ChainWrite(_RECEIVES, 255, b"taken over"),))),
    "descriptor-send-beyond": ("send guest memory behind a buffer",
        (_PUBLISH, (), (ChainTransfer(_SENDS, 0, 0, 0, 65, 0),))),
    "descriptor-longer": ("tell the guest that more was received than its buffer has",
        (_PUBLISH, (), (ChainUsed(_RECEIVES, 257 | e1000.DD),))),
}
# fmt: on
"""By the names of their probes, with what each tries: the effects of one reply after the other."""


def e1000_device() -> DeviceSpec:
    """The device, whose wire is the disk of that name."""
    device = e1000_net(0, bytes(6))
    wire = Medium("disk0", 1 << 20, writable=True, max_bytes=1 << 16)
    grants = [
        wire if isinstance(one, Medium) else one for one in device.grants[:3]
    ]  # no host input and output
    return DeviceSpec(**device.as_dict() | {"grants": tuple(grants)})


def e1000_written(ram: GuestMemory, receives: int, sends: int, buffer: int) -> Sequence[tuple[int, int]]:
    """What the guest has written to registers: so it has published rings at these places. One descriptor to
    receive to is there already; the one to send has 64 bytes.
    """
    ram.write(sends, buffer.to_bytes(8, "little") + (64 | 1 << 24).to_bytes(8, "little"))
    enable = e1000.ENABLE | 3 << 16  # buffers of 256 bytes
    return [
        (register, value)
        for index, place in enumerate((receives, sends))
        for register, value in (
            (e1000.RINGS[index], place),
            (e1000.RINGS[index] + e1000.LEN, RING),
            (e1000.RINGS[index] + e1000.TAIL, 1),
            (e1000.CONTROLS[index], enable),
        )
    ]


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
    board = with_pci(devices) if any(device.pci for device in devices) else devices
    buses = Buses(board, ram, irq_source, note)
    other = DeviceSpec("other", "", "", mmio=(AddressRange(layout.VIRTIO_BASE, layout.VIRTIO_SIZE),))
    buses.attach(other, Silent(), None)
    if buses.fabric is not None:
        buses.fabric.connect(_DISK.name, Silent(), None)
    return buses


def placed(buses: Buses) -> bytes:
    """What is at the protected places: where it begins, or nothing."""
    found = [buses.mmio.find(place) for place in PROTECTED]
    return b"".join(b"-" if one is None else one.first.to_bytes(8, "little") for one in found)
