"""--pci on, --pci off: a PCI bus whether or not a device needs it, or none."""

from __future__ import annotations

from kvmbox.run.options.choices import DEFAULT_PCI, PciChoice
from kvmbox.run.part import Opening, Part


class Pci(Part):
    """The word of the user about the bus of one run."""

    def __init__(self, pci: PciChoice = DEFAULT_PCI) -> None:
        self._pci = pci

    def equip(self, opening: Opening) -> None:
        """See `Part`. Before the devices, which go where there is a bus for them."""
        opening.pci = self._pci


PART = Pci
