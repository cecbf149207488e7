"""A virtual CPU as an object: its run loop, its thread, and the requests of other threads.

The main loop holds a list of these objects, and has no other access to a vCPU. A request to a running vCPU
sets a flag that the run loop checks between two exits, and kicks the vCPU out of KVM_RUN. Any thread may call
`leave`. All other methods belong to the main loop.

Examining the machine
---------------------

HLT does not exit, so the main loop has to examine whether the guest can ever continue. One vCPU can wake
another. If the main loop examined the vCPUs one after the other, it could miss this: the second vCPU could
wake the first after the examination of the first, and fall asleep before its own. So all vCPUs are paused
first, and then their states belong together (`look_at_all`). A vCPU that waits for a device process does not
pause. In this case the guest is awake.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from kvmbox.errors import UnknownExitError
from kvmbox.host.starvation import Starvation
from kvmbox.host.threads import start_thread
from kvmbox.kvm import uapi
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.lean import Value
from kvmbox.outcome import GUEST_CRASHED, Outcome
from kvmbox.run.sleep import Sleep, look_at
from kvmbox.run.vcpu_loop import LEAVE, PARK, VcpuLoop
from kvmbox.run.vcpu_report import ReadMemory, report_beside, vcpu_report


class VcpuThread:
    """One vCPU of a machine, from its first KVM_RUN to the end of its loop."""

    def __init__(
        self,
        vcpu: Vcpu,
        loop: VcpuLoop,
        *,
        cpu: int | None,
        confine: Callable[[], None],
        ended: Callable[[VcpuThread], None],
    ) -> None:
        """`cpu` is the host CPU that the thread binds itself to, or None. The thread calls `confine` before
        the guest runs, and `ended` after the loop has ended, whatever ended it.
        """
        self.vcpu = vcpu
        self.loop = loop
        self.error: BaseException | None = None
        """What ended the loop, if that was an error."""
        self._cpu = cpu
        self._confine = confine
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name=f"vcpu {vcpu.index}", daemon=True)

    def start(self) -> None:
        """Run the guest. Raises KvmboxError if the host has no room for a thread."""
        start_thread(self._thread, f"the thread of vCPU {self.vcpu.index}")

    @property
    def is_alive(self) -> bool:
        """Whether the loop has been started and has not ended."""
        return self._thread.is_alive()

    def pause(self) -> None:
        """Ask the loop to pause between two exits. `is_paused` tells when it has paused."""
        self.loop.request_attention(PARK)

    @property
    def is_paused(self) -> bool:
        """Whether the vCPU is paused, so that any thread may read its state."""
        return self.loop.parked or not self.is_alive

    @property
    def paused_in_access(self) -> bool:
        """Of a paused vCPU: whether it had an exit to handle when it was asked to pause."""
        return self.loop.paused_in_access

    def resume(self) -> None:
        """End a `pause`, whether the loop has already paused or not."""
        self.loop.unpark()

    def leave(self) -> None:
        """End the loop at the next exit, and cause this exit now, even if paused. Thread-safe."""
        self.loop.request_attention(LEAVE)

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end. Return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def starvation(self) -> Starvation:
        """What tells from now on whether the host gives the thread no CPU."""
        return Starvation(0, self._thread.ident or 0)

    def _run(self) -> None:
        try:
            if self._cpu is not None:
                os.sched_setaffinity(0, {self._cpu})
            self.vcpu.bind_thread()
            self._confine()
            self.loop.run()
        except BaseException as error:  # noqa: BLE001 - handed to the main loop, which reports it
            self.error = error
        finally:
            self.vcpu.unbind_thread()
            self._ended(self)


class Look(Value):
    """What a look at all vCPUs has found. `halted`: each of them is in HLT. `outcome`: the guest's end, if
    all of them sleep and nothing is left that could wake one.
    """

    halted: bool
    outcome: Outcome | None


def join_all(threads: Sequence[VcpuThread], seconds: float) -> bool:
    """Wait `seconds` for the end of `threads`, all together. Return whether all of them have ended."""
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    return not any(thread.is_alive for thread in threads)


def look_at_all(
    threads: Sequence[VcpuThread], ioapic: uapi.kvm_ioapic_state, read_memory: ReadMemory
) -> Look:
    """Examine the paused vCPUs of a machine. Raises KvmError."""
    sleeps = [look_at(thread.vcpu, ioapic) for thread in threads]
    outcome = None
    if all(sleep.reason for sleep in sleeps):
        report = report_beside if len(threads) > 1 else vcpu_report
        outcome = _end(sleeps, [report(thread.vcpu, read_memory) for thread in threads])
    return Look(all(sleep.halted for sleep in sleeps), outcome)


def _end(sleeps: Sequence[Sleep], reports: Sequence[str]) -> Outcome:
    """The outcome of a guest that sleeps for ever, from the state of its first CPU."""
    reason = f"the guest is halted for ever: {sleeps[0].reason}"
    if len(sleeps) > 1:
        reason += f", and each of its {len(sleeps)} CPUs sleeps"
    report = "\n".join(reports)
    halted = sleeps[0].halted
    return Outcome(GUEST_CRASHED, reason, error=True, hint=sleeps[0].hint, report=report, brief=halted)


def ended_it(thread: VcpuThread, outcome: Outcome) -> bool:
    """Whether the end of this vCPU was the decisive event."""
    if thread.loop.outcome is outcome:
        return True
    error = thread.error
    return isinstance(error, UnknownExitError) and str(error) == f"{outcome.reason}\n{outcome.report}"
