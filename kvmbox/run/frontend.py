"""Who runs a machine: a program that has other things to do, or a command that is there for this run alone.

What belongs to the whole process is touched through here only: signal handlers and the wake-up descriptor,
SIGALRM, the interpreter's switch interval, the terminal on stdin, and what confines the process for good.
`Caller` touches nothing. `ProcessOwner` does what makes a run faster, safer and kinder to whoever sits at the
terminal, and is for a process that ends with its run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kvmbox.base.errors import SandboxError, UsageError
from kvmbox.base.outcome import Decision
from kvmbox.host.console.serial_ports import STDIN
from kvmbox.host.console.terminal import NO_DESCRIPTOR, RawTerminal
from kvmbox.host.process.signals import SignalHandlers, Wakeup
from kvmbox.jail import layers
from kvmbox.kvm.vcpu import KICK_SIGNAL, install_kick_signal
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.run.result.stage_times import Timeline
from kvmbox.sandbox import vmm
from kvmbox.sandbox.vmm import Confinement

if TYPE_CHECKING:
    from kvmbox.host.files.atomic_file import TemporaryFile
    from kvmbox.host.time.start_timeout import StartDeadline, StartTimeout
    from kvmbox.run.options.config import RunConfig

    Starting: TypeAlias = "StartDeadline | StartTimeout | Untimed"

SWITCH_INTERVAL: Final = 20e-6
"""How long, in seconds, a thread that comes back from the guest waits for one that computes. Python's own
default of 5 ms would be hundreds of exits; when nobody else computes it costs nothing."""


class Untimed(nullcontext[None]):
    """The start of a run that has no time-out."""

    at = None

    def over(self) -> None:
        """The main loop takes over."""


class Caller:
    """A program: it owns the process, and the machine touches nothing of that."""

    waits_for_kernel = True
    """Whether the end of a machine waits until the kernel has destroyed the VM, which may have a thread of
    its own in the process till then. A process that ends anyway need not wait.
    """

    def __init__(self) -> None:
        self.terminal = RawTerminal(NO_DESCRIPTOR)
        """What stdin is, for a port that is on stdio."""

    def starting(self, timeout: float | None, timeline: Timeline) -> Starting:
        """The context in which the run starts: StartTimeoutError ends it."""
        if timeout is None:
            return Untimed()
        from kvmbox.host.time.start_timeout import StartDeadline

        return StartDeadline(timeout, timeline.started, timeline.latest)

    def stands(self, machine: Any, guest: Any) -> None:
        """The machine, a `Standing`, is complete, and nothing of its `GuestVm` has run. It runs next."""

    def ready(self, decision: Decision, wakeup: Wakeup) -> None:
        """Nothing can go wrong with the start any more: from now on `decision` is what ends the run, and
        `wakeup` what makes the main loop look.
        """

    def confine(
        self, pool: DevicePool, config: RunConfig, *, readable: Sequence[str], accepts: bool, disks: bool
    ) -> Confinement | None:
        """Confine the process, if it is to be. It can still read what is in the directories `readable`. If it
        `accepts`, a client may connect to its socket then; with `disks`, it can read and write those.

        SandboxError if a layer that is required cannot be had.
        """
        del pool, readable, accepts, disks
        if required := config.require & layers.VMM:
            raise SandboxError(
                f"sandbox layer missing: {', '.join(layers.names(required))}",
                hint="only the kvmbox command confines its own process, not a program that uses it",
            )
        return None

    def take_stdio(self) -> tuple[int, int]:
        """Give stdin and stdout away, for --gdb -: descriptors to read and to write. Raises UsageError."""
        raise UsageError("--gdb - is for the command line: a program has no pipe to a debugger")

    def committer(self, files: Sequence[TemporaryFile]) -> tuple[Callable[[int], None], Callable[[], None]]:
        """What gives the file of a number its name, and what ends that, idempotent. Raises StartError."""
        return (lambda number: files[number].commit()), (lambda: None)

    @property
    def ended_by(self) -> str | None:
        """Why the caller wants the run to end, in words, or None."""
        return None

    def release(self) -> None:
        """The run is over: what `ready` took is put back. Idempotent."""


class ProcessOwner(Caller):
    """The command line: in its main thread, once in a process."""

    waits_for_kernel = False

    def __init__(self, *, tracebacks: bool = False) -> None:
        """`tracebacks` says that the confined process is to be able to print them."""
        super().__init__()
        self.terminal = RawTerminal(STDIN)
        self._tracebacks = tracebacks
        self._decision: Decision | None = None
        self._signals = SignalHandlers(
            suspend=self.terminal.restore,
            resume=self.terminal.enter,
            give_up=self._give_up,
            others={KICK_SIGNAL},
        )

    def starting(self, timeout: float | None, timeline: Timeline) -> Starting:
        """See Caller."""
        if timeout is None:
            return Untimed()
        from kvmbox.host.time.start_timeout import StartTimeout

        return StartTimeout(timeout, timeline.started, timeline.latest)

    def ready(self, decision: Decision, wakeup: Wakeup) -> None:
        """Every signal that ends a run ends it in order; stopping and continuing mind the terminal."""
        self._decision = decision
        install_kick_signal()
        sys.setswitchinterval(SWITCH_INTERVAL)
        wakeup.install()
        self._signals.install()
        self.terminal.enter()

    def confine(
        self, pool: DevicePool, config: RunConfig, *, readable: Sequence[str], accepts: bool, disks: bool
    ) -> Confinement:
        """See Caller; there is no way back."""
        spawner = pool.spawner
        return vmm.confine_main(
            keep=spawner.capabilities_needed(moves_processes=pool.spin is not None) if spawner else 0,
            spawner_pidfd=spawner.process.pin() if spawner else None,
            without=config.design.without,
            require=config.require,
            tracebacks=self._tracebacks,
            readable=readable,
            accepts=accepts,
            disks=disks,
        )

    @property
    def ended_by(self) -> str | None:
        """See Caller."""
        return self._signals.reason

    def take_stdio(self) -> tuple[int, int]:
        """See Caller. From now on, stdin is empty, and what is printed on stdout goes to stderr."""
        from kvmbox.host.console.stdio_handover import take_stdio

        return take_stdio()

    def committer(self, files: Sequence[TemporaryFile]) -> tuple[Callable[[int], None], Callable[[], None]]:
        """See Caller. The process will not be able to do it itself."""
        from kvmbox.host.files.atomic_file import Committer

        committer = Committer(files)
        return committer.commit, committer.close

    def release(self) -> None:
        """See Caller."""
        self._signals.restore()

    def _give_up(self) -> bool:
        if self._decision is None or self._decision.outcome is not None:
            return False
        self.terminal.leave()
        return True
