"""`kvmbox run --watch`: boot again whenever a file of the guest changes.

Each boot is a `kvmbox run` of its own, a child with the same terminal. The files are looked at a few times a
second: builds replace files in many ways (written in place, renamed, removed for a while), and the inode,
size and time of modification show them all. A change counts when two looks in a row agree, because a linker
writes for some time.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from kvmbox.base.errors import KvmboxError
from kvmbox.host.process import early_signals
from kvmbox.host.process.child_command import child_command

LOOK_MS: Final = 200
PATIENCE_MS: Final = 5000
"""How long a boot may take to end before it is killed."""

INTERRUPTED: Final = 130

State = tuple[tuple[int, int, int] | None, ...]


class WatchError(KvmboxError):
    """A boot cannot be started. Status 14."""

    exit_status = 14


class Boot(Protocol):
    """One boot: a process."""

    def wait(self, milliseconds: int) -> int | None:
        """Its exit status, or None if it still runs after so long."""

    def end(self) -> None:
        """End it, and wait for that."""


class Child:
    """A `kvmbox run` with these arguments, on this process's terminal."""

    def __init__(self, arguments: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen((*child_command(), "run", *arguments))
        except OSError as error:
            raise WatchError(f"cannot start kvmbox again: {error.strerror}") from error
        self._pidfd = os.pidfd_open(self._process.pid)

    def wait(self, milliseconds: int) -> int | None:
        """See Boot."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        if not poll.poll(milliseconds):
            return None
        status = self._process.wait()
        return status if status >= 0 else 128 - status

    def end(self) -> None:
        """See Boot."""
        self._process.terminate()
        if self.wait(PATIENCE_MS) is None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """Forget the process, which has ended."""
        os.close(self._pidfd)


def states_of(paths: Sequence[str]) -> State:
    """What tells a file from another version of itself, for each path; None where there is none."""
    found: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            facts = os.stat(path)
        except OSError:
            found.append(None)
        else:
            found.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
    return tuple(found)


def watch(
    paths: Sequence[str],
    boot: Callable[[], Boot],
    say: Callable[[str], None],
    *,
    state_of: Callable[[Sequence[str]], State] = states_of,
    pause: Callable[[int], None],
) -> int:
    """Boot, and boot again at each change of `paths`, until a boot is interrupted; returns its status.

    `pause` waits for so many milliseconds while no boot runs.
    """
    while True:
        seen = before = state_of(paths)
        running: Boot | None = boot()
        try:
            while True:
                if running is None:
                    pause(LOOK_MS)
                else:
                    status = running.wait(LOOK_MS)
                    if status == INTERRUPTED:
                        return status
                    if status is not None:
                        say(f"status {status}; waiting for a change of {', '.join(paths)}")
                        running = None
                now = state_of(paths)
                if now != seen and now == before and None not in now:
                    break
                before = now
        finally:
            if running is not None:
                running.end()
        say(f"{_changed(paths, seen, now)} changed; booting again")


def _changed(paths: Sequence[str], before: State, now: State) -> str:
    return ", ".join(path for path, old, new in zip(paths, before, now, strict=True) if old != new)


def boot_again(arguments: Sequence[str], paths: Sequence[str], say: Callable[[str], None]) -> int:
    """`kvmbox run` with `arguments`, again at each change of `paths`, until Ctrl-A X or a signal."""
    children: list[Child] = []

    def boot() -> Child:
        for child in children:
            child.close()
        early_signals.raising = False  # a child that is not in the list yet would be left behind
        children[:] = [Child([one for one in arguments if one != "--watch"])]
        early_signals.raising = True
        early_signals.check()
        return children[0]

    try:
        return watch(paths, boot, say, pause=lambda milliseconds: time.sleep(milliseconds / 1000))
    except KeyboardInterrupt:
        early_signals.raising = False
        for child in children:
            child.end()
        raise
