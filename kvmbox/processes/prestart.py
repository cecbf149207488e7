"""A spawner that is started before anything else, so that it comes up while the VMM imports the rest.

A spawner takes some 20 ms to come up, most of it in its own interpreter, on a CPU that is idle then. The
`kvmbox run` script starts one as its first act, before the command line has been read, with what is wanted
of nearly every run; `take` hands it out if it is what is wanted, and starts another one if not. Nothing else
changes: it is still the main thread that starts it, and nothing has been opened yet.
"""

from __future__ import annotations

import contextlib

from kvmbox import early
from kvmbox.errors import SandboxError
from kvmbox.processes.spawner_client import SpawnerClient
from kvmbox.sandbox.linux import SECCOMP_MODE_FILTER

_waiting: list[SpawnerClient] = []


def start() -> None:
    """Start a spawner for filtered device processes with every layer. Where it cannot be, `take` says why."""
    with contextlib.suppress(SandboxError):
        _waiting.append(SpawnerClient.start())
        early.exit_callbacks.append(drop)


def take(*, seccomp: int = SECCOMP_MODE_FILTER, without: int = 0) -> SpawnerClient:
    """A spawner as `SpawnerClient.start` makes it, perhaps one that is up already. Raises SandboxError."""
    if _waiting and (seccomp, without) == (SECCOMP_MODE_FILTER, 0):
        return _waiting.pop()
    drop()
    return SpawnerClient.start(seccomp=seccomp, without=without)


def drop() -> None:
    """End the spawner that nobody took. Idempotent, never raises."""
    while _waiting:
        _waiting.pop().close()
