"""Values of command-line options, as click wants them: the rules are those of `run.options.values`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # click 8.1, which Debian 13 has, knows no type parameter


class Value(_ParamType):
    """What one function of `run.options.values` accepts; its ValueError becomes click's error."""

    def __init__(self, name: str, read: Callable[[Any], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def given(*names: str) -> list[str]:
    """Which of these parameters of the command the command line names, as options are written, in order.

    For options that mean nothing beside another one: what is given in vain is a mistake, the default is none.
    """
    return [
        max(parameter.opts, key=len)
        for parameter in click.get_current_context().command.params
        if parameter.name in names and is_given(parameter.name)
    ]


def is_given(name: str) -> bool:
    """Whether the command line, or a configuration file, names this parameter of the command."""
    source = click.get_current_context().get_parameter_source(name)
    return source in (click.core.ParameterSource.COMMANDLINE, click.core.ParameterSource.DEFAULT_MAP)


def is_typed(name: str) -> bool:
    """Whether the command line itself names this parameter of the command."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def has_rich() -> bool:
    """Whether rich is installed, which draws tables on terminals."""
    from importlib.util import find_spec

    return find_spec("rich") is not None
