"""A virtual CPU as an object: its run loop, its thread, its state, and the requests of other threads.

The main loop and the parts hold a list of these objects, and have no other access to a vCPU. `run_state`
has the states and what requests do. Any thread may make a request; `start`, `join` and the registers
(`handle`) of a vCPU that stands still belong to the main loop.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from kvmbox.base.errors import UnknownExitError
from kvmbox.base.outcome import Outcome
from kvmbox.host.process.threads import start_thread
from kvmbox.host.time.starvation import Starvation
from kvmbox.kvm.vcpu import Vcpu
from kvmbox.run.vcpu.run_loop import VcpuLoop
from kvmbox.run.vcpu.run_state import Attention, Event, VcpuControl


class VcpuThread(VcpuControl):
    """One vCPU of a machine, from its first KVM_RUN to the end of its loop."""

    def __init__(
        self,
        vcpu: Vcpu,
        attention: Attention,
        *,
        notify: Callable[[], None],
        cpu: int | None,
        confine: Callable[[], None],
        ended: Callable[[VcpuThread], None],
    ) -> None:
        """`attention` and `notify` are `VcpuControl`'s. `cpu` is the host CPU that the thread binds itself
        to, or None. The thread calls `confine` before the guest runs, and `ended` after the loop has ended,
        whatever ended it.
        """
        super().__init__(attention, vcpu.kick, notify)
        self.vcpu = vcpu
        self.loop: VcpuLoop
        """Runs the guest. To be set before `start`, as it is made with this object."""
        self.error: BaseException | None = None
        """What ended the loop, if that was an error."""
        self._cpu = cpu
        self._confine = confine
        self._ended = ended
        self._thread = threading.Thread(target=self._run, name=f"vcpu {vcpu.index}", daemon=True)

    def start(self) -> None:
        """Run the guest. Raises KvmboxError if the host has no room for a thread."""
        with self._changed:  # the thread's own events come after START
            start_thread(self._thread.start, f"the thread of vCPU {self.vcpu.index}")
            self.move(Event.START)

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end. Return whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self.is_alive

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
            self.move(Event.END)


def ended_it(thread: VcpuThread, outcome: Outcome) -> bool:
    """Whether the end of this vCPU was the decisive event."""
    if thread.loop.outcome is outcome:
        return True
    error = thread.error
    return isinstance(error, UnknownExitError) and str(error) == f"{outcome.reason}\n{outcome.report}"
