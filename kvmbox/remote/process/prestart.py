"""The early start of a spawner, which starts while the VMM imports its other modules.

A spawner needs some 20 ms to start, mostly in its own interpreter, on an otherwise idle CPU. `kvmbox run`
starts a spawner as its first action, before the command line has been read, with the options of nearly every
run. If the run needs other options, `take` starts another spawner. Otherwise nothing changes: the main thread
starts the spawner, and no file has been opened yet.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.errors import SandboxError
from kvmbox.host.process import early_signals
from kvmbox.jail.linux import SECCOMP_MODE_FILTER
from kvmbox.remote.process.spawner_client import SpawnerClient


class Prestart:
    """Where spawners come from. `kind` starts them, and may be changed before the first one is wanted."""

    def __init__(self, kind: type[SpawnerClient] = SpawnerClient) -> None:
        self.kind = kind
        self._waiting: list[SpawnerClient] = []

    def start(self, spawner: SpawnerClient | None = None) -> None:
        """Start a spawner for filtered device processes with every layer, or have this one. If that fails,
        `take` says why.
        """
        try:  # `contextlib` is imported while the spawner starts
            self._waiting.append(spawner or self.kind.start())
            early_signals.exit_callbacks.append(self.drop)
        except SandboxError:
            pass

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
