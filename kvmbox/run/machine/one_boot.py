"""One boot of a machine, from a reset to the next: its virtual machine and its vCPUs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvmbox.base.value_classes import Value

if TYPE_CHECKING:
    from kvmbox.run.machine.guest_vm import GuestVm
    from kvmbox.run.vcpu.coalesced_ring import CoalescedRing
    from kvmbox.run.vcpu.handle import VcpuThread


class Boot(Value):
    """`ring` has the writes that do not exit, if KVM coalesces any."""

    guest: GuestVm
    vcpus: Sequence[VcpuThread]
    ring: CoalescedRing | None
