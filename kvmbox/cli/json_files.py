"""The files of --json: opened before the work of a command, and filled at its end.

`-` is stdout; lines for people then go to stderr, as with the reports of `kvmbox smoke`. `kvmbox run` refuses
`-` for each file that it writes: its stdout belongs to the guest.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any, Final, TextIO

from kvmbox import __version__
from kvmbox.base.errors import HostOutputError, StartError, UsageError
from kvmbox.host.console.serial_backends import open_for_writing, reason

SCHEMA: Final = 1
"""The version of what --json writes. It grows when a field goes or gets another meaning."""

STDOUT: Final = "-"
"""The path that stands for stdout."""


def open_output(path: str | None, option: str = "--json") -> TextIO | None:
    """The file of an option, opened before the work, so that it is not wasted on a wrong path."""
    if path is None:
        return None
    # What a confined VMM has not loaded, it cannot load.
    import base64  # noqa: F401 - the picture of a screen
    import hashlib  # noqa: F401 - its digest
    import zlib  # noqa: F401 - its compression

    try:
        return os.fdopen(os.dup(1) if path == STDOUT else open_for_writing(path), "w", encoding="utf-8")
    except OSError as error:
        raise StartError(f"cannot write {option} '{path}': {reason(error)}") from error


def for_people(json_path: str | None) -> AbstractContextManager[object]:
    """Within it, what is printed for people goes to stderr if stdout has the data of --json."""
    return redirect_stdout(sys.stderr) if json_path == STDOUT else nullcontext()


def refuse_stdout(written: Iterable[tuple[str, str]]) -> None:
    """UsageError if a file, as (what for, path), is to be stdout, which belongs to the guest."""
    for what, path in written:
        if path == STDOUT:
            raise UsageError(
                f"{what} '{STDOUT}': stdout belongs to the guest",
                hint="name a file; ./- is a file of this name",
            )


def write_output(path: str | None, file: TextIO | None, text: str, option: str = "--json") -> None:
    """Fill the file of an option, if one was asked for, and close it. HostOutputError if that fails."""
    if file is None:
        return
    try:
        with file:
            file.write(text)
    except OSError as error:
        raise HostOutputError(f"cannot write {option} '{path}': {error.strerror}") from error


def write_data(path: str | None, file: TextIO | None, data: dict[str, Any]) -> None:
    """The same for data, whose schema `kvmbox config --schema COMMAND` prints."""
    if file is not None:
        import json

        text = json.dumps({"schema": SCHEMA, "kvmbox": __version__, **data}, indent=2)
        write_output(path, file, f"{text}\n")


def show(text: str, data: dict[str, Any], json_path: str | None) -> None:
    """Print what a command has found, and write the file of --json."""
    import click  # which `kvmbox run` does not load

    json_file = open_output(json_path)
    with for_people(json_path):
        click.echo(text)
    write_data(json_path, json_file, data)
