"""PCI in a run: the board that the guest gets, and what connects it to a virtual machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.contract.pci_grants import interrupts_of
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.virtio.pci_functions import on_pci
from kvmbox.kvm import uapi
from kvmbox.kvm.msi import signal_msi

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.kvm.vm import Vm
    from kvmbox.remote.bus.pci_fabric import PciFabric
    from kvmbox.run.options.choices import PciChoice


Interrupts = tuple[tuple[int, int], ...]
"""See `Platform.pci`."""


def functions(devices: Sequence[DeviceSpec]) -> list[DeviceSpec]:
    """Virtio devices as functions of the bus."""
    return [on_pci(device) for device in devices]


def completed(board: list[DeviceSpec], choice: PciChoice) -> tuple[list[DeviceSpec], Interrupts]:
    """A board that needs a bus, or is to have one, with that; and what firmware tells. Raises UsageError."""
    if choice == "off":
        needing = next(device.name for device in board if device.pci is not None)
        raise UsageError(f"--pci off contradicts {needing}, which is on PCI", hint="drop '--pci off'")
    board = with_pci(board)
    return board, interrupts_of(board)


def plug(pci: PciFabric, vm: Vm, *, is_fresh: bool) -> None:
    """Connect PCI to a virtual machine. In a fresh one all is as the firmware leaves it: the interrupt lines
    of PCI are levels. Raises KvmError.
    """
    if is_fresh:
        pci.power_on()
        _set_levels(vm)
    pci.attach(partial(signal_msi, vm.fileno()))


def _set_levels(vm: Vm) -> None:
    levels = sum(1 << line for line in set(layout.PIRQ_LINES))
    for chip, shift in ((uapi.KVM_IRQCHIP_PIC_MASTER, 0), (uapi.KVM_IRQCHIP_PIC_SLAVE, 8)):
        state = vm.get_irqchip(chip)
        state.pic.elcr |= levels >> shift & 0xFF
        vm.set_irqchip(state)
