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

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.process.cpu_placement import Placement
    from kvmbox.remote.process.spare_process import SpareProcess


class Prestart:
    """Where spawners come from. `kind` starts them, and may be changed before the first one is wanted."""

    def __init__(self, kind: type[SpawnerClient] = SpawnerClient) -> None:
        self.kind = kind
        self._waiting: list[SpawnerClient] = []
        self._reserve: SpareProcess | None = None
        self._is_placed = False
        """Whether a machine has the placement of the reserve, and closes it."""

    def start(self, spawner: SpawnerClient | None = None) -> None:
        """Start a spawner for filtered device processes with every layer, or have this one. If that fails,
        `take` says why.
        """
        try:  # `contextlib` is imported while the spawner starts
            self._waiting.append(spawner or self.kind.start())
            early_signals.exit_callbacks.append(self.drop)
        except SandboxError:
            pass

    def reserve(self) -> None:
        """Order the device process of a plain run from the spawner that waits, if there is one. If that
        fails, who wants it tells why.
        """
        from kvmbox.host.process.cpu_placement import place
        from kvmbox.remote.process.spare_process import SpareProcess

        if self._waiting:
            placement = place("auto")
            try:
                self._reserve = SpareProcess(self._waiting[-1], placement)
            except SandboxError:
                placement.close()

    def place(self, choice: str, vcpus: int) -> Placement:
        """Place a machine, if possible where its device process waits. See
        `host.process.cpu_placement.place`.
        """
        from kvmbox.host.process.cpu_placement import place

        if choice == "auto" and self._reserve is not None:
            placement = self._reserve.placement
            placement.vcpus = vcpus
            self._is_placed = True
            return placement
        return place(choice, vcpus)

    def take_reserve(self) -> SpareProcess | None:
        """The device process that waits behind the spawner that was taken. The caller drops it."""
        reserve, self._reserve = self._reserve, None
        return reserve

    def take(self, *, seccomp: int = SECCOMP_MODE_FILTER, without: int = 0) -> SpawnerClient:
        """A spawner as `kind.start` makes it, perhaps one that is up already. Raises SandboxError."""
        if self._waiting and (seccomp, without) == (SECCOMP_MODE_FILTER, 0):
            return self._waiting.pop()
        self.drop()
        return self.kind.start(seccomp=seccomp, without=without)

    def drop(self) -> None:
        """End the spawner that nobody took, and its processes. Idempotent, never raises."""
        if self._reserve is not None:
            self._reserve.drop()
            if not self._is_placed:
                self._reserve.placement.close()
            self._reserve = None
        while self._waiting:
            self._waiting.pop().close()


OWN: Final = Prestart()
"""This process's."""
