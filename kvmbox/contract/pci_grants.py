"""What only devices on a PCI bus may do."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base import layout
from kvmbox.contract.device_spec import DeviceSpec, PciGrant
from kvmbox.contract.pci_function import PlacedFunction


class Intx(PciGrant):
    """The model's next output pin is the INTx pin of its PCI function."""


class Vectors(PciGrant):
    """The model's next `count` output pins are messages of its PCI function (MSI-X)."""

    count: int


class PciBus(PciGrant):
    """The device has the configuration spaces of `functions`: it says where their registers decode and how
    they interrupt.
    """

    functions: tuple[PlacedFunction, ...]


def bus_of(board: Sequence[DeviceSpec]) -> PciBus:
    """The bus of a board that has one."""
    return next(bus for device in board for bus in device.granted(PciBus))


def interrupts_of(board: Sequence[DeviceSpec]) -> tuple[tuple[int, int], ...]:
    """(device number, interrupt line as the firmware routes it) of each function that has an INTx pin, of a
    board with a bus.
    """
    pins = {device.name for device in board if device.granted(Intx)}
    return tuple(
        (one.number >> 3, layout.PIRQ_LINES[one.pirq])
        for one in bus_of(board).functions
        if one.device in pins
    )
