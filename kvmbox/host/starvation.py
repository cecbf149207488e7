"""Whether a silent process is starved of CPU time: on a busy host it may be ready but never run.

A process that is stopped, sleeps, or computes for ever is hung. A process that waits for a CPU is not hung.
Killing it would make the failure of a busy host look like the failure of a device. /proc shows the
difference, even for a process that is not dumpable.
"""

from __future__ import annotations

from typing import Final

ENOUGH_NS: Final = 250_000_000
"""A process that got this much CPU time since it was first watched is not starved."""


class Starvation:
    """Watches one process whose reply is overdue."""

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        """Start now. Earlier CPU time does not count."""
        self._directory = f"{proc}/{pid}"
        self._had = self._cpu_time()

    def is_starved(self) -> bool:
        """Whether the process is ready to run, but has got hardly any CPU time."""
        try:
            with open(f"{self._directory}/stat", "rb") as file:
                # The name in parentheses may contain anything: the state follows the last of them.
                state = file.read().rpartition(b")")[2].split()[0]
        except (OSError, IndexError):
            return False  # it is gone, or /proc is not there: it is not known to be starved
        now = self._cpu_time()
        return state == b"R" and self._had is not None and now is not None and now - self._had < ENOUGH_NS

    def _cpu_time(self) -> int | None:
        try:
            with open(f"{self._directory}/schedstat", "rb") as file:
                return int(file.read().split()[0])
        except (OSError, IndexError, ValueError):
            return None
