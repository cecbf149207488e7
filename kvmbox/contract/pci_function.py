"""A PCI function as its board wants it: identity, base address registers, capabilities.

Pure data. `board` gives each function a number, addresses and an interrupt. `devices.pci.model` has its
configuration space, and `remote.bus.pci_fabric` what the guest makes of it.
"""

from __future__ import annotations

from kvmbox.base.value_classes import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PCI: Final = "PCI"
"""Name of the device that has the configuration spaces."""

MSI: Final = 0x05
MSIX: Final = 0x11
"""The capability ids of MSI and MSI-X (PCI Local Bus Specification 3.0, 6.8.1 and 6.8.2)."""


class Piece(Value):
    """The bytes of a region [start, start + count) are the registers of the device from `register` on."""

    start: int
    count: int
    register: int


class Bar(Value):
    """What a base address register places: `size` bytes, a power of two, of which `pieces` answer.

    `with_msix` are its pieces while the function has MSI-X enabled, if they are others.
    """

    size: int
    pieces: tuple[Piece, ...]
    is_io: bool = False
    is_wide: bool = False
    is_prefetchable: bool = False
    with_msix: tuple[Piece, ...] | None = None


class PciFunction(Value):
    """A device as a PCI function. `ids` are vendor and device, and vendor and device of the subsystem.

    `bars` has None for a register that there is not; a wide one has the next one, too. A capability is its
    bytes, whose second one, the link, is filled in. `slot` is the device number that it has to have.
    """

    ids: tuple[int, int, int, int]
    class_code: int
    bars: tuple[Bar | None, ...] = ()
    capabilities: tuple[bytes, ...] = ()
    revision: int = 0
    interrupts: bool = True
    slot: int | None = None


class PlacedFunction(Value):
    """The function `number` (device << 3 | function) of the device of that name, or of none.

    `bars` are (index, what it places, address that the firmware gives it). `pirq` is the interrupt of the
    router, 0 to 3, that its pin is wired to. `has_msi`: its pin may be a message.
    """

    number: int
    device: str
    bars: tuple[tuple[int, Bar, int], ...] = ()
    pirq: int = 0
    has_msi: bool = False
