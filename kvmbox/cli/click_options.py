"""The options of commands as click has them: rows of `run.options.option_table`, and others like them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import click

from kvmbox.cli.click_types import Value
from kvmbox.remote.transport.ipc_table import DEFAULT_IPC, ipc_of
from kvmbox.run.options.choices import DEFAULT_SECCOMP
from kvmbox.run.options.definition import FLAG, REPEATED, Option, Section
from kvmbox.run.options.option_table import OPTIONS

Decorator = Callable[[Any], Any]
"""What click makes of an option."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def as_in_run(name: str, **changes: Any) -> Option:
    """The option of `kvmbox run`, but for `changes`."""
    return OPTIONS[name].replaced(**changes)


SECCOMP: Final = as_in_run("seccomp", help="As in 'kvmbox run'.", default=DEFAULT_SECCOMP)
IPC: Final = as_in_run("ipc", help="As in 'kvmbox run'.", default=DEFAULT_IPC)
SANDBOX: Final = Option(
    "sandbox",
    "Where the device models run: in jailed processes, or in the process of kvmbox.",
    default="process",
    choices=("process", "none"),
)
UNTIL: Final = Option(
    "until", "Stop after this guest time (1.5s, 200ms) or record (4711).", metavar="TIME|RECORD"
)
DEVICE: Final = Option("device", "Use only this device (COM1) or device type (uart).", metavar="NAME|TYPE")


def transport(ipc: str) -> str:
    """What `ipc`, a value of --ipc, means on this host."""
    return ipc_of(ipc, can_spin=len(os.sched_getaffinity(0)) > 1)


def output(name: str, what: str, flag: str = "") -> Option:
    """An option that names the file for `what`."""
    return Option(name, f"Write {what} to FILE, or to stdout if FILE is -.", flag=flag, metavar="FILE")


JSON: Final = output("json_path", "the result as data", "--json")


def takes(
    *rows: Section | Option | Decorator,
    defaults: bool = True,
    completions: Mapping[str, Callable[..., Any]] | None = None,
) -> Callable[[_Function], _Function]:
    """A decorator that gives a command options, those of a row or a ready one, and --debug.

    Without `defaults`, an option that is not given is None. `completions` complete the values of some,
    by name.
    """
    complete = completions or {}
    debug = OPTIONS["debug"]
    decorators = [
        _decorator(row, default=row.default if defaults else None, shell_complete=complete.get(row.name))
        if isinstance(row, Option)
        else row
        for row in _flat(rows)
    ]
    if debug not in _flat(rows):  # the outermost handler looks for it by itself (`cli.main`)
        decorators.append(_decorator(debug, default=None, expose_value=False))

    def decorate(function: _Function) -> _Function:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def _flat(rows: tuple[Section | Option | Decorator, ...]) -> Iterator[Option | Decorator]:
    for row in rows:
        yield from row.options if isinstance(row, Section) else (row,)


def _decorator(option: Option, *, default: Any, **more: Any) -> Decorator:
    if default is not None:
        more["default"] = default
    return click.option(
        *option.spelling.split(),
        option.name,
        is_flag=True if option.kind == FLAG else None,  # False means more than no flag
        multiple=option.kind == REPEATED,
        type=_type(option),
        metavar=option.metavar,
        help=option.full_help,
        **more,
    )


def _type(option: Option) -> click.ParamType[Any] | None:
    if option.read is not None:
        return Value(option.read.__name__, option.read)
    if option.bounds is not None:
        return click.IntRange(*option.bounds)
    return click.Choice(option.choices) if option.choices else None
