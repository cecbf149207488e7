"""No file is used for two things: one of them would empty what the other one reads or has written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from kvmbox.base.errors import UsageError


def refuse_shared(written: Iterable[tuple[str, str]], read: Iterable[tuple[str, str]] = ()) -> None:
    """UsageError if a file that is `written` is another one of these, by whatever name.

    Each is (what for, path). To be called before anything is opened: opening a file for writing empties it.
    Devices and FIFOs may be used as often as one likes.
    """
    seen = {key: what for what, path in read if (key := _identity(what, path)) is not None}
    for what, path in written:
        key = _identity(what, path)
        if key is None:
            continue
        if key in seen:
            also = "named twice" if what == seen[key] else f"also {seen[key]}"
            raise UsageError(
                f"{what} '{path}' is {also}",
                hint="each needs a file of its own: one of them is written to",
            )
        seen[key] = what


def _identity(what: str, path: str) -> tuple[int, int] | str | None:
    """What two names of one regular file have in common, also before it exists; None for what is no file."""
    if "\0" in path:
        raise UsageError(f"{what} {path!r} has a NUL, which no file name has", hint="give the name of a file")
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
