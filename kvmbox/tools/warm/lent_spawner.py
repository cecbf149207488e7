"""The spawner of a boot process: no child of it, and beyond the reach of its signals.

A spawner that a template has forked (`spawner_template`) is the template's child, and outside of the boot
process's scope of signals. So the boot process has a *lifeline*: a socket to the template. Whatever the boot
process sends there, and its end, is the order to kill the spawner. The template answers with the wait status
of the spawner, once it has reaped it.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from typing import Final

from kvmbox.jail import descriptor_passing
from kvmbox.remote.process.spawner_client import CLOSE_TIMEOUT_NS, NS_PER_MS, descriptor_limit, is_readable
from kvmbox.remote.process.spawner_process import SpawnerProcess
from kvmbox.tools.warm import frames

KILL: Final = b"kill"
"""Nobody reads that."""


class LentSpawner(SpawnerProcess):
    """One that a template has forked."""

    def __init__(self, lifeline: int) -> None:
        self.pid = 0
        self._lifeline = lifeline

    def go_on_as(self, pid: int, pidfd: int) -> None:
        """See SpawnerProcess."""
        self.pid = pid
        os.close(pidfd)

    def kill(self) -> None:
        """See SpawnerProcess: as soon as the template comes to it."""
        with suppress(OSError):
            descriptor_passing.send(self._lifeline, KILL, wait=False)

    def resume(self) -> None:
        """See SpawnerProcess: if it does not go on, it is killed."""

    def end(self, *, kill: bool) -> int | None:
        """See SpawnerProcess."""
        if kill or not is_readable(self._lifeline, CLOSE_TIMEOUT_NS // NS_PER_MS):
            self.kill()
        is_readable(self._lifeline, CLOSE_TIMEOUT_NS // NS_PER_MS)
        with suppress(OSError):
            if message := descriptor_passing.receive(self._lifeline, wait=False):
                return frames.unpack(message[0])[2]
        return None

    def pin(self) -> None:
        """See SpawnerProcess: nobody needs to be signalled, and open files are limited all the same."""
        limit = descriptor_limit()
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    def close(self) -> None:
        """See SpawnerProcess."""
        os.close(self._lifeline)
