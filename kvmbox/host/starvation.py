"""Whether a silent process can help it: on a host with too much to do it may be ready, and never run.

A process that is stopped, sleeps, or computes for ever is hung. One that waits for a CPU is not: killing it
would make the failure of a busy host look like the failure of a device. /proc tells the difference, also of
a process that is not dumpable.
"""

from __future__ import annotations

from typing import Final

ENOUGH_NS: Final = 250_000_000
"""A process that has had so much CPU time since it was first watched has had its chance."""


class Starvation:
    """Watches one process that ought to have answered."""

    def __init__(self, pid: int, proc: str = "/proc") -> None:
        """Begin now: what CPU time it had before does not count."""
        self._directory = f"{proc}/{pid}"
        self._had = self._cpu_time()

    def is_starved(self) -> bool:
        """Whether it is ready to run, but has hardly been let."""
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
