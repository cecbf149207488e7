"""The files of --json: opened before the work of a command, and filled at its end."""

from __future__ import annotations

import os
from typing import TextIO

from kvmbox.errors import HostOutputError, StartError
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
