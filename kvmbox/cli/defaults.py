"""Defaults of options from a configuration file.

The file is the nearest `kvmbox.toml`, or `pyproject.toml` with a table `[tool.kvmbox]`, in the working
directory or a directory above it. A table has the name of a command, and its keys are the names of options:

    [run]                       # in pyproject.toml: [tool.kvmbox.run]
    memory = "64M"
    timeout = 10
    expect = ["All tests passed"]

The command line wins. Only options that a command calls `configurable` may be set: none that names a file to
write, and none that takes isolation away, because whoever made the directory may not be who runs kvmbox. For
the same reason a file of another user is passed over. `KVMBOX_CONFIG` names another file, or is `none`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from typing import Any, Final

from kvmbox.errors import UsageError
from kvmbox.lean import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import click

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
            # Most projects do not speak of kvmbox: spare the parser.
            elif content is not None and (name == NAME or b"kvmbox" in content):
                tables = _tables(path, content)
                if name == NAME or tables:
                    return Configuration(path, tables, tuple(passed_over))
        above = os.path.dirname(here)
        if above == here:
            return Configuration(None, {}, tuple(passed_over))
        here = above


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
        raise UsageError(f"cannot read the configuration {path}: {error.strerror}", hint=_HINT) from error


def _read(path: str, descriptor: int) -> bytes:
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read(MOST_BYTES + 1) or b""
    if len(content) > MOST_BYTES:
        raise UsageError(f"the configuration {path} has more than {MOST_BYTES >> 20} MiB", hint=_HINT)
    return content


_HINT: Final = f"{VARIABLE}=none leaves configuration files out"


def _tables(path: str, content: bytes) -> dict[str, Any]:
    import tomllib

    try:
        tables: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError of its own
        raise UsageError(f"the configuration {path} is not TOML: {error}", hint=_HINT) from error
    if os.path.basename(path) == PROJECT:
        for key in ("tool", "kvmbox"):
            tables = tables.get(key, {})
            if not isinstance(tables, dict):
                raise UsageError(f"{path}: '{key}' is no table", hint=_HINT)
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: '{name}' is no table of a command", hint="options go below [run]")
    return tables


def options(command: click.Command, name: str, configuration: Configuration) -> dict[str, Any]:
    """What `configuration` sets for the command `name`: values by parameter, as click reads them.

    Raises UsageError for an unknown option, one that must not be set in a file, and a wrong value.
    """
    import click

    table = configuration.tables.get(name, {})
    where = f"{configuration.path}: [{name}]"
    allowed: frozenset[str] = getattr(command, "configurable", frozenset())
    parameters = {
        max(parameter.opts, key=len).removeprefix("--"): parameter
        for parameter in command.params
        if isinstance(parameter, click.Option)
    }
    found = {}
    for key, value in table.items():
        parameter = parameters.get(key)
        if parameter is None or parameter.name is None:
            listed = f"{VARIABLE}=none kvmbox {name} --help"
            raise UsageError(f"{where} has no option '{key}'", hint=f"'{listed}' lists them")
        if parameter.name not in allowed:
            raise UsageError(
                f"{where}: '{key}' cannot be set in a file", hint=f"give --{key} on the command line"
            )
        found[parameter.name] = _value(parameter, value, f"{where}: '{key}'")
        try:
            parameter.type_cast_value(click.Context(command), found[parameter.name])
        except click.BadParameter as error:
            raise UsageError(f"{where}: '{key}': {error.message}") from error
    return found


def _value(parameter: click.Option, value: Any, where: str) -> Any:
    if parameter.is_flag:
        if not isinstance(value, bool):
            raise UsageError(f"{where} is true or false")
        return value
    if parameter.multiple:
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise UsageError(f"{where} is a list of strings")
        return value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UsageError(f"{where} is a string or a number")
    return str(value)


def apply(context: click.Context, command: click.Command, name: str, known: Collection[str]) -> None:
    """Make what the configuration sets the defaults of `command`, which `context` is about to call. `known`
    are the names of all commands: a table of another name is a mistake, and what it sets is missed.
    """
    if context.resilient_parsing or not getattr(command, "configurable", None):
        return
    found = find()
    unknown = [table for table in found.tables if table not in known]
    if unknown:
        raise UsageError(f"{found.path}: there is no command '{unknown[0]}'", hint=_HINT)
    context.default_map = {name: options(command, name, found)}
