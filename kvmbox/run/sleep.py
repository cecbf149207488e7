"""Whether a vCPU sleeps, and whether anything except another vCPU can still wake it.

A vCPU must be paused while it is examined. For an answer about a machine all vCPUs must be paused, because a
running vCPU could wake another one meanwhile. See `vcpu.look_at_all`.
"""

from __future__ import annotations

from typing import Final

from kvmbox import layout
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.wakeups import may_start, may_wake_halted
from kvmbox.lean import Value

_RFLAGS_IF: Final = 1 << 9
_WAITS_FOR_SIPI: Final = (uapi.KVM_MP_STATE_UNINITIALIZED, uapi.KVM_MP_STATE_INIT_RECEIVED)


END_CLEANLY: Final = (
    f"to end with a status of its own, a guest writes to the debug-exit port ({layout.DEBUG_EXIT_PORT:#x});"
    f" to end with status 0, it writes 'Shutdown' to port {layout.SHUTDOWN_PORT:#x}"
)


class Sleep(Value):
    """The state of an examined vCPU.

    `halted`: the vCPU is in HLT. `reason` says why no device can wake the vCPU, and is empty where one can,
    or where the vCPU runs; `hint` goes with it.
    """

    halted: bool
    reason: str = ""
    hint: str = ""


def look_at(vcpu: Vcpu, ioapic: uapi.kvm_ioapic_state) -> Sleep:
    """Examine a paused vCPU. Raises KvmError."""
    state = vcpu.get_mp_state()
    if state == uapi.KVM_MP_STATE_HALTED:
        if _may_leave_halt(vcpu, ioapic):
            return Sleep(halted=True)
        return Sleep(
            halted=True,
            reason="hlt with interrupts off",
            hint=END_CLEANLY,
        )
    if state in _WAITS_FOR_SIPI and not may_start(ioapic):
        return Sleep(
            halted=False,
            reason="it waits for a start-up IPI, and no other CPU can send one",
            hint="an INIT makes a CPU wait if its IA32_APIC_BASE says that it is no bootstrap processor",
        )
    return Sleep(halted=False)


def _may_leave_halt(vcpu: Vcpu, ioapic: uapi.kvm_ioapic_state) -> bool:
    if vcpu.get_regs().rflags & _RFLAGS_IF:
        return True
    events = vcpu.get_vcpu_events()
    if events.nmi.pending or events.nmi.injected or events.smi.pending:
        return True
    return may_wake_halted(ioapic, vcpu.get_lapic(), nmi_blocked=bool(events.nmi.masked))
