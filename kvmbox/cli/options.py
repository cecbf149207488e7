"""The options of `kvmbox run` as click has them, from the table of `run.options`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

from kvmbox.cli.sections import OTHER
from kvmbox.cli.values import Value
from kvmbox.run.option import FILE, FLAG, REPEATED, Option
from kvmbox.run.options import OPTIONS, SECTIONS, names

_Function = TypeVar("_Function", bound=Callable[..., Any])

HELP_SECTIONS: Final = {
    section.title: tuple(option.name for option in section.options)
    for section in SECTIONS
    if section.title != OTHER
}
"""The names of the options by purpose, but for those of the last section."""

CONFIGURABLE: Final = frozenset(names(FILE))
"""What a configuration file may set."""


def run_options(completions: Mapping[str, Callable[..., Any]]) -> Callable[[_Function], _Function]:
    """A decorator that gives a command the options of the table; `completions` complete values of some."""

    def decorate(function: _Function) -> _Function:
        for option in reversed(OPTIONS.values()):
            function = _decorator(option, completions.get(option.name))(function)
        return function

    return decorate


def _decorator(option: Option, complete: Callable[..., Any] | None) -> Callable[[_Function], _Function]:
    return click.option(
        option.spelling,
        option.name,
        is_flag=True if option.kind == FLAG else None,  # False means more than no flag
        multiple=option.kind == REPEATED,
        type=_type(option),
        metavar=option.metavar,
        help=option.full_help,
        shell_complete=complete,
    )


def _type(option: Option) -> click.ParamType[Any] | None:
    if option.read is not None:
        return Value(option.read.__name__, option.read)
    if option.bounds is not None:
        return click.IntRange(*option.bounds)
    return click.Choice(option.choices) if option.choices else None
