"""Whether a reply is late because the host is busy: who owes it, or who waits for it, is starved.

A process that is stopped, sleeps, or computes for ever is hung. A process that waits for a CPU is not hung,
nor is one that waits for the disk or for memory. Killing it would make the failure of a busy host look like
the failure of a device. /proc shows the difference, even for a process that is not dumpable.

A process that has answered sleeps as well. The thread that waits for the reply is then ready to run, but may
not have run yet. So both are looked at, first the process and then the thread. If an honest process sleeps,
it has answered, or it was not asked yet. In both cases the thread is ready from then on. Reading /proc gives
the GIL away, so a thread that waits for the GIL is ready, too.
"""

from __future__ import annotations

import threading
from typing import Final

ENOUGH_NS: Final = 250_000_000
"""A process or thread that got this much CPU time since it was first watched is not starved."""

_WAITS_FOR_HOST: Final = (b"R", b"D")  # for a CPU, or in the kernel for the disk or for memory


class Starvation:
    """Watches who owes a reply that is overdue, and the thread of this process that waits for the reply."""

    def __init__(self, pid: int, waiter: int = 0, proc: str = "/proc") -> None:
        """Start now. Earlier CPU time does not count. `pid` may be the number of a thread, and is 0 where
        there is nobody who owes the reply.

        `waiter` is the `ident` of the thread that waits, or 0: it is the caller.
        """
        directories = [f"{proc}/{pid}"] if pid else []
        for thread in threading.enumerate():
            if thread.ident == waiter:
                directories.append(f"{proc}/self/task/{thread.native_id}")
        self._tasks = [_Task(directory) for directory in directories]

    def is_starved(self) -> bool:
        """Whether one of the two is ready to run, but has got hardly any CPU time."""
        return any(task.is_starved() for task in self._tasks)


class _Task:
    """A process or a thread, by its directory in /proc."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._had = self._cpu_time()

    def is_starved(self) -> bool:
        try:
            with open(f"{self._directory}/stat", "rb") as file:
                # The name in parentheses may contain anything: the state follows the last of them.
                state = file.read().rpartition(b")")[2].split()[0]
        except (OSError, IndexError):
            return False  # it is gone, or /proc is not there: it is not known to be starved
        now = self._cpu_time()
        return (
            state in _WAITS_FOR_HOST
            and self._had is not None
            and now is not None
            and now - self._had < ENOUGH_NS
        )

    def _cpu_time(self) -> int | None:
        try:
            with open(f"{self._directory}/schedstat", "rb") as file:
                return int(file.read().split()[0])
        except (OSError, IndexError, ValueError):
            return None
