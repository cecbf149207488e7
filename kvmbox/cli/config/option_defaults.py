"""Defaults of options from a configuration file.

The file is the nearest `kvmbox.toml`, or `pyproject.toml` with a table `[tool.kvmbox]`, in the working
directory or a directory above it. A table has the name of a command, and its keys are the names of options:

    [run]                       # in pyproject.toml: [tool.kvmbox.run]
    memory = "64M"
    timeout = 10
    expect = ["All tests passed"]

`cli.config.file_settings` makes what a table sets the defaults of a command. The command line wins. Only
options that a command calls `configurable` may be set: none that names a file to write, and none that takes
isolation away, because whoever made the directory may not be who runs kvmbox. For the same reason a file of
another user is passed over. `KVMBOX_CONFIG` names another file, or is `none`.
"""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value

VARIABLE: Final = "KVMBOX_CONFIG"
NAME: Final = "kvmbox.toml"
PROJECT: Final = "pyproject.toml"
MOST_BYTES: Final = 1 << 20


class Configuration(Value):
    """What was found: the `path`, or None; its `tables` by command; files of others that were passed over."""

    path: str | None
    tables: dict[str, Any]
    passed_over: tuple[str, ...] = ()


def find(directory: str | None = None) -> Configuration:
    """The configuration that counts in `directory`, the working directory by default. Raises UsageError."""
    named = os.environ.get(VARIABLE, "")
    if named == "none":
        return Configuration(None, {})
    if named:
        return Configuration(named, _tables(named, _content(named)))
    passed_over: list[str] = []
    try:
        here = directory or os.getcwd()
    except OSError:  # the working directory is gone
        return Configuration(None, {})
    while True:
        for name in (NAME, PROJECT):
            path = os.path.join(here, name)
            found, content = _own_content(path)
            if found and content is None:
                passed_over.append(path)
            elif content is not None and (name == NAME or _may_have_table(content)):
                tables = _tables(path, content)
                if name == NAME or tables:
                    return Configuration(path, tables, tuple(passed_over))
        here, below = os.path.dirname(here), here
        if here == below:
            return Configuration(None, {}, tuple(passed_over))


def _may_have_table(content: bytes) -> bool:
    """Whether a project may have `[tool.kvmbox]`: few do, and the parser, with its imports, takes 10 ms."""
    bare = content.translate(None, b" \t\"'")  # TOML's ways to say it differ in these
    return b"kvmbox" in bare and any(way in bare for way in (b"tool.kvmbox", b"[tool]", b"tool="))


def _own_content(path: str) -> tuple[bool, bytes | None]:
    """Whether there is something of this name, and what is in it, if it is a file of the user's or of root's.

    The owner is that of the open descriptor, and asked before anything is read. Raises UsageError.
    """
    try:
        # A FIFO has no end, and may have no writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return False, None
    except OSError:  # who may not read it did not write it
        return True, None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()):
            return True, None
        return True, _read(path, descriptor)
    finally:
        os.close(descriptor)


def _content(path: str) -> bytes:
    """What is in a file that the user has named. Raises UsageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _read(path, descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}", hint=HINT) from error


def _read(path: str, descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(MOST_BYTES + 1) or b""
    if len(content) > MOST_BYTES:
        raise UsageError(f"the configuration {path} has more than {MOST_BYTES >> 20} MiB", hint=HINT)
    return content


HINT: Final = f"{VARIABLE}=none leaves configuration files out"


def _tables(path: str, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        tables: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError of its own
        raise UsageError(f"the configuration {path} is not TOML: {error}", hint=HINT) from error
    if os.path.basename(path) == PROJECT:
        for key in ("tool", "kvmbox"):
            tables = tables.get(key, {})
            if not isinstance(tables, dict):
                raise UsageError(f"{path}: '{key}' is no table", hint=HINT)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: '{name}' is no table of a command", hint="options go below [run]")
    return tables
