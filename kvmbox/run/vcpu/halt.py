"""Whether a vCPU sleeps, and whether anything except another vCPU can still wake it.

HLT does not exit, so the main loop has to examine whether the guest can ever continue. One vCPU can wake
another. If the main loop examined the vCPUs one after the other, it could miss this: the second vCPU could
wake the first after the examination of the first, and fall asleep before its own. So all vCPUs are paused
first, and then their states belong together (`examine_all`). A vCPU that waits for a device process does not
pause. In this case the guest is awake.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.outcome import GUEST_CRASHED, Outcome
from kvmbox.base.value_classes import Value
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.kvm.wakeups import may_start, may_wake_halted

if TYPE_CHECKING:
    from kvmbox.run.vcpu.handle import VcpuThread
    from kvmbox.run.vcpu.stop_report import ReadMemory

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


def sleep_of(vcpu: Vcpu, ioapic: uapi.kvm_ioapic_state) -> Sleep:
    """Examine a paused vCPU. Raises KvmError."""
    state = vcpu.get_mp_state()
    if state == uapi.KVM_MP_STATE_HALTED:
        if _may_leave_halt(vcpu, ioapic):
            return Sleep(halted=True)
        return Sleep(halted=True, reason="hlt with interrupts off", hint=END_CLEANLY)
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


class SleepReport(Value):
    """What a look at all vCPUs has found. `halted`: each of them is in HLT. `outcome`: the guest's end, if
    all of them sleep and nothing is left that could wake one.
    """

    halted: bool
    outcome: Outcome | None


def examine_all(
    threads: Sequence[VcpuThread], ioapic: uapi.kvm_ioapic_state, read_memory: ReadMemory
) -> SleepReport:
    """Examine the paused vCPUs of a machine. Raises KvmError."""
    sleeps = [sleep_of(thread.vcpu, ioapic) for thread in threads]
    outcome = None
    if all(sleep.reason for sleep in sleeps):
        from kvmbox.run.vcpu.stop_report import report_beside, vcpu_report

        report = report_beside if len(threads) > 1 else vcpu_report
        outcome = _end(sleeps, [report(thread.vcpu, read_memory) for thread in threads])
    return SleepReport(all(sleep.halted for sleep in sleeps), outcome)


def _end(sleeps: Sequence[Sleep], reports: Sequence[str]) -> Outcome:
    """The outcome of a guest that sleeps for ever, from the state of its first CPU."""
    reason = f"the guest is halted for ever: {sleeps[0].reason}"
    if len(sleeps) > 1:
        reason += f", and each of its {len(sleeps)} CPUs sleeps"
    report = "\n".join(reports)
    halted = sleeps[0].halted
    return Outcome(GUEST_CRASHED, reason, error=True, hint=sleeps[0].hint, report=report, brief=halted)
