"""What the state of all vCPUs tells, when a guest has come to a bad end and its threads have ended."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.errors import UnknownExitError
from kvmbox.lean import Value
from kvmbox.machine.crash_report import ReadMemory, diagnose, report_beside
from kvmbox.machine.vcpu_thread import VcpuThread
from kvmbox.outcome import GUEST_CRASHED, INTERRUPTED, TIMED_OUT, UNKNOWN_EXIT, Outcome


class Aftermath(Value):
    """`diagnosis` is a hint about the cause, if there is one. `other_cpus` is the state of those CPUs that
    did not end the guest, if one of several has.
    """

    diagnosis: str | None = None
    other_cpus: str = ""


def examine(threads: Sequence[VcpuThread], read_memory: ReadMemory, outcome: Outcome) -> Aftermath:
    """Examine the vCPUs of a guest that has ended with `outcome`."""
    if outcome.status not in (GUEST_CRASHED, UNKNOWN_EXIT, TIMED_OUT, INTERRUPTED):
        return Aftermath()
    told = (diagnose(thread.vcpu, read_memory) for thread in threads)
    diagnosis = next((text for text in told if text is not None), None)
    if not any(_ended_it(thread, outcome) for thread in threads):
        return Aftermath(diagnosis)
    others = [thread.vcpu for thread in threads if not _ended_it(thread, outcome)]
    return Aftermath(diagnosis, "\n".join(report_beside(vcpu, read_memory) for vcpu in others))


def _ended_it(thread: VcpuThread, outcome: Outcome) -> bool:
    """Whether the end of this vCPU was the decisive event."""
    if thread.loop.outcome is outcome:
        return True
    error = thread.error
    return isinstance(error, UnknownExitError) and str(error) == f"{outcome.reason}\n{outcome.report}"
