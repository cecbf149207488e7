"""Files that appear whole or not at all, also if who writes them may open and rename nothing any more.

A `Destination` is a file beside the wanted one, without a name, or with another one where the file system
wants one. It is opened before the VMM confines itself. When all is written, `commit` gives it the wanted
name; whoever reads under that name finds the old file or the new one, and never a part.

A confined VMM has no right to rename (docs/adr/confinement.md), and gets none for this: with it, a guest that
had taken over the VMM could replace files of the user. So a `Committer` forks a process that can do nothing
but name these files, one by one as it is told, and remove those that are left when the VMM is gone, whatever
ended it. The VMM waits `PATIENCE_MS` for it. If somebody has stopped it, a file to be named counts as
output that could not be written, and all that are left are removed when it goes on.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
import signal
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final, NoReturn

from kvmbox.base.errors import SnapshotFileError, StartError
from kvmbox.host.files.replacement_file import PRIVATE, name_beside, open_beside
from kvmbox.host.process.early_signals import END_SIGNALS

_IGNORED: Final = (*END_SIGNALS, signal.SIGTSTP, signal.SIGPIPE)
"""Signals for the whole group of processes, or for the VMM: the committer ends when the VMM has."""


PATIENCE_MS = 60_000
"""How long a file system may take for a name, in ms. A busy disk may well take seconds."""


class TemporaryFile:
    """A file that is removed when the VMM is gone, as the name of a Unix socket is."""

    descriptor = -1
    """What the process that is to commit it keeps open, if it is not -1."""

    def __init__(self, path: str) -> None:
        self.temporary = os.path.realpath(path)

    def commit(self) -> None:
        """Let it stay under its last name, if it has one. Raises OSError."""

    def abandon(self) -> None:
        """Remove it, if it is not there to stay. Harmless if repeated."""
        with suppress(OSError):
            os.unlink(self.temporary)


class Destination(TemporaryFile):
    """One file to be, for its user alone. `descriptor` is open for reading and writing, and empty."""

    unnamed = os.path.exists("/proc/self/fd")
    """Whether it may get its first name when it is complete: by a link there."""

    def __init__(self, path: str, what: str = "snapshot", kind: type[StartError] = SnapshotFileError) -> None:
        """`what` is the word for it in errors, and `kind` theirs. Raises one if no file can be put there."""
        self.path, self._what, self._kind = path, what, kind
        try:
            if not path:
                raise ValueError  # realpath takes it for "."
            self.final = os.path.realpath(path)
            if os.path.exists(self.final) and not os.path.isfile(self.final):
                raise self._refused("there is something that is no file", "name a file that may be replaced")
            self.descriptor, self.temporary = open_beside(self.final, PRIVATE, unnamed=self.unnamed)
        except OSError as error:
            raise self._refused(error.strerror) from error
        except ValueError as error:
            raise self._refused("it is no path") from error

    def _refused(self, why: str | None, hint: str | None = None) -> StartError:
        return self._kind(f"cannot write {self._what} '{self.path}': {why}", hint=hint)

    def commit(self) -> None:
        """Give the file its name. Raises OSError."""
        if not self.temporary:
            self.temporary, link = name_beside(self.final), f"/proc/self/fd/{self.descriptor}"
            # A directory, which an absolute path does not need, makes this linkat(2), which follows the link.
            os.link(link, self.temporary, src_dir_fd=self.descriptor, follow_symlinks=True)
        os.replace(self.temporary, self.final)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.descriptor >= 0:
            descriptor, self.descriptor = self.descriptor, -1
            os.close(descriptor)


class Committer:
    """The process that renames. By one thread at a time."""

    def __init__(self, files: Sequence[TemporaryFile]) -> None:
        """Fork it: in a process that has no other threads. Raises StartError."""
        self._patience_ms = PATIENCE_MS
        try:
            self._socket, its = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
            self._pid = os.fork()
            self._pidfd = os.pidfd_open(self._pid) if self._pid else -1
        except OSError as error:
            raise StartError(f"cannot start the process that removes files: {error.strerror}") from error
        if self._pid == 0:
            _serve(files, its.detach())
        its.close()

    def commit(self, number: int) -> None:
        """Give the file `number` its name. Raises OSError."""
        answer = b""
        with suppress(ConnectionError):  # it is gone, perhaps with this order unread
            if self._patience_ms:
                os.write(self._socket.fileno(), bytes((number,)))
                answer = os.read(self._socket.fileno(), 1) if self._comes(self._socket.fileno()) else b""
            if not self._patience_ms:
                self._socket.close()  # it begins nothing that it has been told
                raise OSError(errno.ETIMEDOUT, "the process that renames it does not answer")
        if answer != b"\0":
            code = answer[0] if answer else 0
            raise OSError(code, os.strerror(code) if code else "the process that renames it is gone")

    def close(self) -> None:
        """End it: what has not got its name is removed. Idempotent."""
        pidfd, self._pidfd = self._pidfd, -1
        self._socket.close()
        if pidfd >= 0 and self._comes(pidfd):
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
        if pidfd >= 0:
            os.close(pidfd)

    def _comes(self, descriptor: int) -> bool:
        """Whether an answer or the end comes in time. What was late once is not waited for again."""
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        came = bool(poll.poll(self._patience_ms))
        self._patience_ms = self._patience_ms if came else 0
        return came


def _serve(files: Sequence[TemporaryFile], orders: int) -> NoReturn:
    """The committer's life."""
    try:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        # Not the terminal, nor the spawner's socket: whoever waits for their end must not wait for this.
        kept = sorted({-1, orders, *(one.descriptor for one in files)})
        for below, above in pairwise((*kept, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(below + 1, above)
        given_up = select.poll()
        given_up.register(orders, select.POLLHUP)
        while (order := os.read(orders, 1)) and not given_up.poll(0):
            code = 0
            try:
                files[order[0]].commit()
            except OSError as error:
                code = error.errno or 1
            os.write(orders, bytes((code,)))
        for file in files:
            file.abandon()
    finally:
        os._exit(0)
