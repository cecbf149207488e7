"""Where the models of a qtest machine run: in jailed processes as those of a run, or in this process.

with open_sandbox("process") as sandbox:      # first: the spawner must not inherit anything
    machine = BareMachine(board, memory, ...)
    sandbox.connect(machine, board)           # from here the machine answers
    ...
    sandbox.check()                           # a process that died is named, also between requests
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Sequence
from typing import Self

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.remote.channel.deadlines import WAIT_SLICE_MS, hung_error
from kvmbox.remote.channel.watchdog import Watchdog
from kvmbox.remote.process.device_pool import DevicePool
from kvmbox.remote.transport.direct import direct_channels
from kvmbox.tools.qtest.bare_machine import BareMachine


class Sandbox:
    """`--sandbox none`: the models are called on the thread that asks. A context manager."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """No process is left."""

    def connect(self, machine: BareMachine, board: Sequence[DeviceSpec]) -> None:
        """Start the models of `board` and give their channels to `machine`. Raises SandboxError."""
        channels = direct_channels(
            board, machine.grants(), now=machine.clock, deadline_changed=machine.deadline_changed
        )
        for channel, devices in channels:
            machine.connect(channel, devices)

    def watch(self, poll: select.poll) -> None:
        """Register what becomes readable when a device process fails."""

    def check(self) -> None:
        """Raise DeviceProcessError if a device process is of no use any more; never blocks."""

    def explain(self, error: DeviceProcessError) -> DeviceProcessError:
        """The error with its cause, as far as that can be found out."""
        return error


class ProcessSandbox(Sandbox):
    """`--sandbox process`: a jailed process per device type, on the CPU that this process moves to.

    Asking and answering alternate, and across CPUs a request costs several times as much (docs/adr/links.md).
    A request blocks until its answer comes; a thread counts slices meanwhile and kills a process that hangs.
    """

    def __init__(self) -> None:
        """Start the spawner: before anything else is opened, in the main thread. Raises SandboxError."""
        from kvmbox.host.process.cpu_placement import place

        self._ended = threading.Event()
        self._watchdog: threading.Thread | None = None
        self._placement = place("auto")
        self._found_affinity = os.sched_getaffinity(0)
        try:
            self._pool = DevicePool()
        except BaseException:
            self._placement.close()
            raise

    def __exit__(self, *_: object) -> None:
        # The watchdog first: it uses what is closed behind it.
        self._ended.set()
        if self._watchdog is not None:
            self._watchdog.join()
        self._pool.close()
        self._placement.close()
        os.sched_setaffinity(0, self._found_affinity)

    def connect(self, machine: BareMachine, board: Sequence[DeviceSpec]) -> None:
        """See Sandbox."""
        from kvmbox.sandbox.seccomp import device_filter

        cpu = self._placement.cpu
        self._pool.launch(board, device_filter(), cpu=cpu)
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
        self._pool.connect(machine.grants(), now=machine.clock, deadline_changed=machine.deadline_changed)
        for member in self._pool.members.values():
            machine.connect(self._pool.channel(member.device_type), member.devices)
        self._watchdog = threading.Thread(target=self._watch_requests, name="watchdog", daemon=True)
        self._watchdog.start()

    def _watch_requests(self) -> None:
        watchdog = Watchdog(self._pool.channels)
        while not self._ended.wait(WAIT_SLICE_MS / 1000):
            hung = watchdog.tick()
            if hung is not None:
                # The blocked read ends with the process; the next look at the channel finds this error.
                hung.fail(hung_error(hung.device_type))
                self._pool.kill(hung.device_type)
                return

    def watch(self, poll: select.poll) -> None:
        """See Sandbox."""
        self._pool.watch(poll)

    def check(self) -> None:
        """See Sandbox."""
        error = self._pool.check()
        if error is not None:
            raise error

    def explain(self, error: DeviceProcessError) -> DeviceProcessError:
        """See Sandbox."""
        return self._pool.explain(error)


def open_sandbox(kind: str) -> Sandbox:
    """`kind` is "process" or "none". Raises SandboxError."""
    return Sandbox() if kind == "none" else ProcessSandbox()
