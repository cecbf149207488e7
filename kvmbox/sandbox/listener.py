"""The VMM's end of the seccomp notification: which forbidden call, with which arguments.

The wait status of a killed process tells SIGSYS at most. Here the call is held in the kernel until the
VMM has read it; the VMM then kills the process, so that the call never returns.
"""

from __future__ import annotations

import os
import select

from kvmbox.base.value_classes import Value
from kvmbox.jail import notify
from kvmbox.sandbox.seccomp import syscall_name


class ForbiddenCall(Value):
    """A system call that the policy forbids. `arguments` are the six register values, unsigned."""

    name: str
    number: int
    arguments: tuple[int, ...]
    pid: int

    def __str__(self) -> str:
        return f"{self.name}({', '.join(f'{argument:#x}' for argument in self.arguments)})"


class NotificationListener:
    """The listener of one device process's filter. Owns its descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def fileno(self) -> int:
        """For poll: readable when a call is held, hung up when the process is gone."""
        return self._descriptor

    def receive(self) -> ForbiddenCall | None:
        """The call that is held, or None if there is none (any more). Never blocks. Raises OSError."""
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        # A call that vanishes after poll saw it still wakes the receiver, with ENOENT.
        if not any(events & select.POLLIN for _, events in poller.poll(0)):
            return None
        notification = notify.receive(self._descriptor)
        if notification is None:
            return None
        _, pid, _, number, _, _, *arguments = notification
        return ForbiddenCall(syscall_name(number), number, tuple(arguments), pid)

    def close(self) -> None:
        """Close the descriptor: from here on a forbidden call fails with ENOSYS. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
