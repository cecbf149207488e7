"""stdin and stdout of the process, given away to somebody who speaks with kvmbox itself."""

from __future__ import annotations

import fcntl
import os

from kvmbox.base.errors import UsageError


def take_stdio() -> tuple[int, int]:
    """Duplicates of stdin and stdout, for the client. In their place, stdin is empty, and stdout is stderr.

    Raises UsageError if a person is at the other end.
    """
    if os.isatty(0):
        raise UsageError(
            "--gdb -: stdin is a terminal, and no debugger",
            hint="in gdb: target remote | kvmbox run --gdb - kernel.elf",
        )
    pipe = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3), fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, 3)
    empty = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return pipe
