"""Reads regular files, and blocks on no FIFO."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


def open_regular_file(path: str) -> int:
    """A descriptor of the regular file at `path`. Raises OSError, which says what it is if it is another."""
    # To open a device may do something already, so it is looked at first; and again afterwards, because the
    # name may mean something else by then.
    _check(path, os.stat(path))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_regular_file(path: str, most: int) -> bytes:
    """The content of the regular file at `path`. Raises OSError, also for more than `most` bytes."""
    with open(open_regular_file(path), "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", path)
    return data


def refusal(status: os.stat_result) -> str | None:
    """Why this is no regular file, in words, or None if it is one."""
    if stat.S_ISREG(status.st_mode):
        return None
    return f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'a special file')}, not a regular file"


def _check(path: str, status: os.stat_result) -> None:
    words = refusal(status)
    if words is not None:
        raise OSError(errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL, words, path)
