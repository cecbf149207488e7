"""Files that appear whole or not at all, also if who writes them may open and rename nothing any more.

A `Destination` is a file beside the wanted one, with another name. It is opened before the VMM confines
itself. When all is written, `commit` gives it the wanted name; whoever reads under that name finds the old
file or the new one, and never a part.

A confined VMM has no right to rename (docs/adr/confinement.md), and gets none for this: with it, a guest that
had taken over the VMM could replace files of the user. So a `Committer` forks a process that can do nothing
but rename these files, one by one as it is told, and remove those that are left when the VMM is gone,
whatever ended it.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import Final, NoReturn, Protocol

from kvmbox.errors import SnapshotFileError, StartError
from kvmbox.host.beside import PRIVATE, open_beside
from kvmbox.host.early_signals import END_SIGNALS

_IGNORED: Final = (*END_SIGNALS, signal.SIGTSTP, signal.SIGPIPE)
"""Signals for the whole group of processes, or for the VMM: the committer ends when the VMM has."""


class Pending(Protocol):
    """Something with a name that is not there to stay, unless it is committed."""

    def commit(self) -> None:
        """Give it the name that it is to have. Raises OSError."""
        ...

    def abandon(self) -> None:
        """Remove it, if it was not committed."""
        ...


class Destination:
    """One file to be, for its user alone. `descriptor` is open for reading and writing, and empty."""

    def __init__(
        self, path: str, what: str = "snapshot", error_kind: type[StartError] = SnapshotFileError
    ) -> None:
        """`what` is the word for it in errors. Raises an `error_kind` if no file can be put there."""
        self.path = path
        try:
            if not path:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))  # realpath takes it for "."
            self.final = os.path.realpath(path)
            with suppress(FileNotFoundError):
                if not stat.S_ISREG(os.stat(self.final).st_mode):
                    raise error_kind(
                        f"cannot write {what} '{path}': there is something that is no file",
                        hint="name a file that may be replaced",
                    )
            self.descriptor, self.temporary = open_beside(self.final, PRIVATE)
        except OSError as error:
            raise error_kind(f"cannot write {what} '{path}': {error.strerror}") from error
        except ValueError as error:
            raise error_kind(f"cannot write {what} '{path}': it is no path") from error

    def commit(self) -> None:
        """Give the file its name. Raises OSError."""
        os.replace(self.temporary, self.final)

    def abandon(self) -> None:
        """Remove what was written, if it has not got its name. Harmless if repeated."""
        with suppress(OSError):
            os.unlink(self.temporary)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


class Committer:
    """The process that renames. By one thread at a time."""

    def __init__(self, destinations: Sequence[Pending]) -> None:
        """Fork it: in a process that has no other threads. Raises OSError."""
        order_out, order_in = os.pipe2(os.O_CLOEXEC)
        answer_out, answer_in = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _serve(destinations, order_out, answer_in)
        os.close(order_out)
        os.close(answer_in)
        self._orders, self._answers = order_in, answer_out

    def commit(self, number: int) -> None:
        """Give the destination `number` its name. Raises OSError."""
        os.write(self._orders, bytes((number,)))
        answer = os.read(self._answers, 1)
        if answer != b"\0":
            code = answer[0] if answer else 0
            raise OSError(code, os.strerror(code) if code else "the process that renames it is gone")

    def close(self) -> None:
        """End it: what has not got its name is removed."""
        os.close(self._orders)
        os.close(self._answers)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _serve(destinations: Sequence[Pending], orders: int, answers: int) -> NoReturn:
    """The committer's life."""
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        first, second = sorted((orders, answers))
        # Not the terminal, nor the spawner's socket: whoever waits for their end must not wait for this.
        os.closerange(0, first)
        os.closerange(first + 1, second)
        os.closerange(second + 1, os.sysconf("SC_OPEN_MAX"))
        while order := os.read(orders, 1):
            try:
                destinations[order[0]].commit()
            except OSError as error:
                os.write(answers, bytes((error.errno or 1,)))
            else:
                os.write(answers, b"\0")
        for destination in destinations:
            destination.abandon()
    finally:
        os._exit(0)
