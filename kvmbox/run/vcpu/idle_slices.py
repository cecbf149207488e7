"""A sleep that only kvmbox can end: slices of an idle guest may be long then. Loaded for a guest that sleeps.

A vCPU that is halted goes on for an interrupt. KVM raises those of the local APIC's timer by itself. All
others are lines that kvmbox raises, since the only other sender of interrupts is a vCPU that runs. So if all
vCPUs are halted with their timers masked (Intel SDM volume 3, "Local Vector Table"), nothing happens to the
guest until a line rises that some controller passes on. What waits for a masked line can wait on.

On a PCI bus interrupts are messages as well. A machine with one never sleeps soundly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.kvm.wakeups import MASKED

if TYPE_CHECKING:
    from kvmbox.kvm.vcpu import Vcpu
    from kvmbox.run.machine.device_set import Devices
    from kvmbox.run.machine.one_boot import Boot

LVT_TIMER: Final = 0x320
"""Offset of the register in the local APIC's page."""


class IdleSlices:
    """Of one boot whose vCPUs are paused, and were all halted. Raises KvmError."""

    def __init__(self, devices: Devices, boot: Boot) -> None:
        self._lines = devices.router
        self._vm = boot.guest.vm
        self._rises = self._counted()
        self._began = devices.pci is None and not has_timers([thread.vcpu for thread in boot.vcpus])

    def _counted(self) -> dict[int, int]:
        return {gsi: line.raised for gsi, line in self._lines.lines.items()}

    def lasts(self) -> bool:
        """Whether nothing has risen since that the guest may have heard."""
        before, self._rises = self._rises, self._counted()
        risen = [gsi for gsi, count in self._rises.items() if count != before.get(gsi, 0)]
        self._began = self._began and (not risen or self._vm.are_masked(risen))
        return self._began


def has_timers(vcpus: Sequence[Vcpu]) -> bool:
    """Whether the local APIC's timer of a vCPU may interrupt it."""
    return any(
        not int.from_bytes(bytes(vcpu.get_lapic())[LVT_TIMER : LVT_TIMER + 4], "little") & MASKED
        for vcpu in vcpus
    )
