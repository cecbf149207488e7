"""The standard descriptors: none is closed, and an error of stdout says that it is one."""

from __future__ import annotations

import io
import os
import sys

STDOUT = "<stdout>"
"""The `filename` of an OSError of writing to stdout, once `name_stdout_in_errors` was called."""


class _Stdout(io.FileIO):
    """The raw file below `sys.stdout`, whose errors name it."""

    def write(self, data: object) -> int:
        try:
            # What has bytes is a type from Python 3.12 on; until then it has no name to give here.
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            error.filename = STDOUT
            raise


def name_stdout_in_errors() -> None:
    """From now on an OSError of `sys.stdout` has STDOUT as its `filename`; by itself it says nothing."""
    old = sys.stdout
    old.flush()
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(_Stdout(old.fileno(), "wb", closefd=False)),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=old.isatty(),
    )


def open_standard_descriptors() -> None:
    """Closed descriptors 0, 1 and 2 become /dev/null, or the next thing opened would take their place.

    A closed stdout becomes one that cannot be written to: output that goes nowhere must not look written.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
    # The interpreter has None for what was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False, encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False, encoding="utf-8")
