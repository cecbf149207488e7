"""The early start of a spawner, which starts while the VMM imports its other modules.

A spawner needs some 20 ms to start, mostly in its own interpreter, on an otherwise idle CPU. `kvmbox run`
starts a spawner as its first action, before the command line has been read, with the options of nearly every
run. If the run needs other options, `take` starts another spawner. Otherwise nothing changes: the main thread
starts the spawner, and no file has been opened yet.
"""

from __future__ import annotations

import contextlib
from typing import Final

from kvmbox import early
from kvmbox.errors import SandboxError
from kvmbox.processes.spawner_client import SpawnerClient
from kvmbox.sandbox.linux import SECCOMP_MODE_FILTER


class Prestart:
    """Where spawners come from. `kind` starts them, and may be changed before the first one is wanted."""

    def __init__(self, kind: type[SpawnerClient] = SpawnerClient) -> None:
        self.kind = kind
        self._waiting: list[SpawnerClient] = []

    def start(self) -> None:
        """Start a spawner for filtered device processes with every layer. If that fails, `take` says why."""
        with contextlib.suppress(SandboxError):
            self._waiting.append(self.kind.start())
            early.exit_callbacks.append(self.drop)

    def take(self, *, seccomp: int = SECCOMP_MODE_FILTER, without: int = 0) -> SpawnerClient:
        """A spawner as `kind.start` makes it, perhaps one that is up already. Raises SandboxError."""
        if self._waiting and (seccomp, without) == (SECCOMP_MODE_FILTER, 0):
            return self._waiting.pop()
        self.drop()
        return self.kind.start(seccomp=seccomp, without=without)

    def drop(self) -> None:
        """End the spawner that nobody took. Idempotent, never raises."""
        while self._waiting:
            self._waiting.pop().close()


OWN: Final = Prestart()
"""This process's."""
