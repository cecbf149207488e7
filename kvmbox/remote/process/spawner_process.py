"""The spawner as a process: how a VMM ends it, and learns how it has ended.

Most VMMs have started their spawner (`spawner_client.SpawnerChild`). That of a warm boot was forked by a
template (`tools.warm.lent_spawner`).
"""

from __future__ import annotations

from typing import Protocol


class SpawnerProcess(Protocol):
    """What `SpawnerClient` needs. Nothing here raises, but `pin`."""

    pid: int
    """As this process sees it; that of the stage, as long as there is one."""

    def go_on_as(self, pid: int, pidfd: int) -> None:
        """The stage has told who the spawner is, and exits."""
        ...

    def kill(self) -> None:
        """SIGKILL, whatever state it is in. May be repeated."""
        ...

    def resume(self) -> None:
        """If somebody has stopped it, it is to go on, or to be killed."""
        ...

    def end(self, *, kill: bool) -> int | None:
        """The wait status of one that is about to exit, or that is to be killed; None if nobody knows."""
        ...

    def pin(self) -> int | None:
        """The number of the descriptor by which the spawner is signalled, which no other can get from now
        on; for a filter. None if there is none. Raises SandboxError.
        """
        ...

    def close(self) -> None:
        """Close what belongs to it, behind `end`."""
        ...
