"""The files that a command writes: opened before its work, and none of them a file that it reads, too."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import TextIO

from kvmbox.errors import HostOutputError, StartError, UsageError
from kvmbox.host.serial import open_for_writing, reason


def open_json(path: str | None) -> TextIO | None:
    """The file of --json, opened before the work, so that it is not wasted on a wrong path."""
    if path is None:
        return None
    try:
        return os.fdopen(open_for_writing(path), "w", encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot write --json '{path}': {reason(error)}") from error


def write_json(path: str | None, file: TextIO | None, text: str) -> None:
    """Fill the file of --json, if one was asked for, and close it. HostOutputError if that fails."""
    if file is None:
        return
    try:
        with file:
            file.write(text)
    except OSError as error:
        raise HostOutputError(f"cannot write --json '{path}': {error.strerror}") from error


def refuse_shared(written: Iterable[tuple[str, str]], read: Iterable[tuple[str, str]] = ()) -> None:
    """UsageError if a file that is `written` is another one of these, by whatever name.

    Each is (what for, path). To be called before anything is opened: opening a file for writing empties it.
    Devices and FIFOs may be used as often as one likes.
    """
    seen = {key: what for what, path in read if (key := _identity(path)) is not None}
    for what, path in written:
        key = _identity(path)
        if key is None:
            continue
        if key in seen:
            raise UsageError(
                f"{what} '{path}' is also {seen[key]}",
                hint="each needs a file of its own: one is to be emptied",
            )
        seen[key] = what


def _identity(path: str) -> tuple[int, int] | str | None:
    """What two names of one regular file have in common, also before it exists; None for what is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
