"""How a boot ends, and a run: by what the guest asks for, by its vCPU threads, by a signal or the time.

The judge decides which event counts. This is who tells the judge, and who makes the vCPUs leave. A boot that
ends without a decision has asked for a reset or for a suspension.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvmbox.base.errors import DeviceProcessError, UnknownExitError
from kvmbox.base.outcome import CLEAN, DEVICE_FAILED, INTERRUPTED, TIMED_OUT, UNKNOWN_EXIT, Outcome

if TYPE_CHECKING:
    from kvmbox.base.judge import Judge
    from kvmbox.remote.process.device_pool import DevicePool
    from kvmbox.run.frontend import Caller
    from kvmbox.run.machine.suspend import Suspension
    from kvmbox.run.options.config import RunConfig
    from kvmbox.run.vcpu.handle import VcpuThread


class Ends:
    """The ends of one run. The requests come from any thread, everything else from the main thread."""

    def __init__(
        self,
        config: RunConfig,
        judge: Judge,
        caller: Caller,
        leave: Callable[[], None],
        *,
        started: int,
        say: Callable[[str], None],
    ) -> None:
        """`leave` makes all vCPUs leave, and may be called by any thread. `started` is when the command
        began, in ns of the host's monotonic clock.
        """
        self._config = config
        self._judge = judge
        self._caller = caller
        self._leave = leave
        self.started = started
        """See `__init__`."""
        self._say = say
        self._ended: list[VcpuThread] = []
        """The threads whose loop has ended, in that order, and whose end has not decided the outcome yet."""
        self._reset_wanted = threading.Event()
        self.pool: DevicePool | None = None
        """What knows the cause of the failure of a device process."""
        self.suspension: Suspension | None = None
        """What the guest asked for, if the boot has ended because it asked to be suspended."""
        self.failure: BaseException | None = None
        """The first decisive event of the boot, if that is a failure that no outcome describes."""

    # --- By any thread ------------------------------------------------------------------------------------

    def reset_requested(self) -> None:
        """A device asked for a reset. Called by the thread that received the reply."""
        if self._config.no_reboot:
            self._judge.ends(Outcome(CLEAN, "the guest asked for a reset (--no-reboot)"))
        else:
            self._judge.leaves(self.reset)

    def reset(self) -> None:
        """Not the guest asks for a reset, but a person: that is none of --no-reboot."""
        self._reset_wanted.set()
        self._leave()

    def suspend_requested(self, device: str, wakes: int) -> None:
        """A device asked for the sleep of which it is told the end. By the thread that received the reply."""
        from kvmbox.run.machine.suspend import Suspension

        self.suspension = Suspension(device, wakes)
        self._leave()

    def thread_ended(self, thread: VcpuThread) -> None:
        """The loop of a vCPU has ended. Called by its thread."""
        self._ended.append(thread)

    # --- By the main thread -------------------------------------------------------------------------------

    def begin(self) -> None:
        """A boot begins."""
        self._reset_wanted.clear()
        self._ended.clear()
        self.suspension = self.failure = None

    @property
    def are_near(self) -> bool:
        """Whether a vCPU thread has ended, which ends the boot."""
        return bool(self._ended)

    def takes_reboot(self) -> bool:
        """Whether the boot has ended for another one. A reset wins, if two vCPUs asked at a time: the
        suspension is forgotten.
        """
        if self._reset_wanted.is_set():
            self.suspension = None
        return self._reset_wanted.is_set() or self.suspension is not None

    @property
    def failed(self) -> bool:
        """Whether the boot has ended by a failure."""
        return self.failure is not None

    @property
    def has_signal(self) -> bool:
        """Whether a signal wants the run to end."""
        return self._caller.ended_by is not None

    @property
    def by_signal(self) -> Outcome:
        """The outcome that a signal gives, if it is the first decisive event."""
        return Outcome(INTERRUPTED, self._caller.ended_by or "interrupted")

    def times_out_at(self, stood_ns: int) -> float | None:
        """When --timeout is over, in ns, if a standstill of `stood_ns` does not count; None: never."""
        timeout = self._config.timeout
        return None if timeout is None else self.started + timeout * 1e9 + stood_ns

    def overdue(self, stood_ns: int) -> Outcome | None:
        """The outcome that --timeout gives now, if it is over."""
        at = self.times_out_at(stood_ns)
        if at is None or time.monotonic_ns() < at:
            return None
        return Outcome(TIMED_OUT, f"--timeout {self._config.timeout:g} s ran out", error=True)

    def take(self) -> None:
        """Let the vCPU threads that have failed decide the outcome, in their order, unless it is decided.

        An error that has no outcome is kept as `failure`. If it comes too late to be the first decisive
        event, it is told.
        """
        while self._ended:
            error = self._ended.pop(0).error
            if error is None:
                continue  # it has decided the outcome itself, or was asked to leave
            if isinstance(error, DeviceProcessError):
                self.device_failed(error)
            elif isinstance(error, UnknownExitError):
                first, _, report = str(error).partition("\n")
                self._judge.ends(
                    Outcome(UNKNOWN_EXIT, first, error=True, hint=error.hint, report=report), gone=True
                )
            else:
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Keep an error that ends the run, unless something else has ended the run first."""
        if self.failure is None and self._judge.outcome is None:
            self.failure = error
        else:
            self._say(f"after the end of the run: {error}")

    def device_failed(self, error: DeviceProcessError) -> None:
        """A device process has failed: find the cause, and end the run."""
        if self._judge.outcome is not None:
            return
        assert self.pool is not None
        found = self.pool.explain(error)
        self._judge.decide(Outcome(DEVICE_FAILED, str(found), error=True, hint=found.hint))
