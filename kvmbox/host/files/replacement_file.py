"""A new file beside the one that it will replace: never open to more users than that one."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import Final

PRIVATE: Final = 0o600
"""The mode of a file that holds guest memory, before the umask."""

SHARED: Final = 0o666
"""The mode of any other file, before the umask."""

_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_UNNAMED: Final = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC


def name_beside(path: str) -> str:
    """A path in the same directory, for a file that will be renamed to `path`."""
    folder, name = os.path.split(path)
    # A pid would not do: containers use the same ones again, and a file may have been left.
    return os.path.join(folder, f".{name}.{os.urandom(8).hex()}.partial")


def open_beside(
    path: str, mode: int, *, directory: int | None = None, unnamed: bool = False
) -> tuple[int, str]:
    """A descriptor of a new, empty file, and its path: for whoever renames the file to `path`.

    The file gets no bit of `mode` that the umask takes away, or that a file at `path` lacks. `path` is
    relative to the open `directory`, if one is given. A symbolic link at `path` is not followed. If it is to
    be `unnamed`, and the file system can do this, its own path is empty: it has no name yet, and goes with
    the last process that has it open, whatever ends that. `path` is then absolute. Raises OSError.
    """
    with suppress(FileNotFoundError):
        replaced = os.stat(path, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISREG(replaced.st_mode):
            mode &= stat.S_IMODE(replaced.st_mode)
    if unnamed:
        with suppress(OSError):
            return os.open(os.path.dirname(path), _UNNAMED, mode), ""
    beside = name_beside(path)
    return os.open(beside, _NEW, mode, dir_fd=directory), beside


def write_beside(path: str, data: bytes, *, directory: int | None = None) -> None:
    """Make or replace the file at `path`, which is SHARED: see `open_beside`. Raises OSError."""
    descriptor, beside = open_beside(path, SHARED, directory=directory)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(beside, path, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        os.unlink(beside, dir_fd=directory)
        raise
