"""The files of reports and of the history: opened before the work, written in whole, errors in words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

from kvmbox.base.errors import HostOutputError, StartError, UsageError
from kvmbox.base.regular_file import read_regular_file
from kvmbox.host.console.serial_backends import open_for_writing, reason
from kvmbox.host.files.replacement_file import SHARED, write_beside
from kvmbox.tools.smoke.report.history import MOST_BYTES, History

STDOUT: Final = "-"


class ReportFile:
    """A file that a report is written to. `option` names it in errors. Raises StartError."""

    def __init__(self, option: str, path: str, *, append: bool = False) -> None:
        self._option = option
        self._path = path
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(path, flags, SHARED) if append else open_for_writing(path)
            self._file: TextIO = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise StartError(f"cannot write {option} '{path}': {reason(error)}") from error

    def write(self, text: str) -> None:
        """Write `text` now, so that a reader sees it. HostOutputError."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            raise HostOutputError(f"cannot write {self._option} '{self._path}': {error.strerror}") from error

    def close(self) -> None:
        """Close it. HostOutputError."""
        try:
            self._file.close()
        except OSError as error:
            raise HostOutputError(f"cannot write {self._option} '{self._path}': {error.strerror}") from error


def default_history_path(suites: Sequence[str], environment: Mapping[str, str]) -> str | None:
    """Where the history of these suites is kept if nobody says where; None where there is no home."""
    cache = environment.get("XDG_CACHE_HOME") or ""
    if not os.path.isabs(cache):
        home = environment.get("HOME") or ""
        if not os.path.isabs(home):
            return None
        cache = os.path.join(home, ".cache")
    names = "\0".join(os.path.abspath(suite) for suite in suites)
    digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return os.path.join(cache, "kvmbox", "smoke", f"{digest}.json")


def read_history(path: str) -> History:
    """The history in a file; an empty one where there is no file. Raises UsageError."""
    try:
        data = read_regular_file(path, MOST_BYTES)
    except FileNotFoundError:
        return History()
    except OSError as error:
        raise UsageError(f"cannot read --history '{path}': {error.strerror}") from error
    try:
        return History.parse(data.decode())
    except ValueError as error:
        what = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UsageError(f"--history '{path}': {what}", hint="remove the file: it is made anew") from error


def write_history(path: str, history: History) -> None:
    """Replace the file at once, so that no reader sees half of it. OSError."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    write_beside(path, history.as_text().encode())
