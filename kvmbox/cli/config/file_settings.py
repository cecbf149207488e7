"""What a configuration file sets for a command: its table, checked, as defaults of the command's options."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click

from kvmbox.base.errors import UsageError
from kvmbox.cli.config.option_defaults import HINT, VARIABLE, Configuration, find


def options(command: click.Command, name: str, configuration: Configuration) -> dict[str, Any]:
    """What `configuration` sets for the command `name`: values by parameter, as click reads them.

    Raises UsageError for an unknown option, one that must not be set in a file, and a wrong value.
    """
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
        raise UsageError(f"{found.path}: there is no command '{unknown[0]}'", hint=HINT)
    context.default_map = {name: options(command, name, found)}
