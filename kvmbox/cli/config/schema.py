"""JSON Schemas of the files that people write, `kvmbox.toml` and suites of guests, and of what --json writes.

The schema of `kvmbox.toml` follows from the options of the commands, that of a suite from its keys. So both
follow from the table in `run.options.option_table`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from kvmbox.cli.config.json_documents import DOCUMENTS, RAN, TEXT, Shape
from kvmbox.cli.main import COMMANDS, cli
from kvmbox.run.options.option_table import OPTIONS
from kvmbox.tools.smoke.suite.suite_file import DEFAULTS, STARTS, TESTS
from kvmbox.tools.smoke.suite.suite_keys import FIELDS, START_FIELDS, Field

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def of_configuration() -> Schema:
    """The schema of `kvmbox.toml`: a table for each command that has options to set."""
    group = click.Context(cli, resilient_parsing=True)
    tables = {}
    for name in COMMANDS:
        command = cli.get_command(group, name)
        allowed: frozenset[str] = getattr(command, "configurable", frozenset())
        if command is not None and allowed:
            tables[name] = _table(
                {
                    max(one.opts, key=len).removeprefix("--"): _setting(one)
                    for one in command.params
                    if isinstance(one, click.Option) and one.name in allowed
                }
            )
    return {"$schema": DIALECT, "title": "kvmbox.toml", **_table(tables)}


def of_suite() -> Schema:
    """The schema of a suite of guests."""
    tables: Schema = {
        DEFAULTS: _keys({name: one for name, one in FIELDS.items() if one.is_default}),
        STARTS: {"type": "array", "items": _keys(START_FIELDS)},
        TESTS: {"type": "array", "items": _keys(FIELDS), "minItems": 1},
    }
    return {"$schema": DIALECT, "title": "Suite of guests", **_table(tables), "required": [TESTS]}


def _table(properties: Mapping[str, Schema]) -> Schema:
    return {"type": "object", "properties": dict(properties), "additionalProperties": False}


def _setting(option: click.Option) -> Schema:
    """What `cli.config.option_defaults` accepts for an option."""
    if option.is_flag:
        kind: Schema = {"type": "boolean"}
    elif option.multiple:
        kind = {"type": "array", "items": {"type": "string"}}
    elif isinstance(option.type, click.Choice):
        kind = {"enum": list(option.type.choices)}
    else:
        kind = {"type": ["string", "number"]}
    return kind | {"description": option.help}


def _keys(fields: Mapping[str, Field]) -> Schema:
    return _table({name: _key(one) for name, one in fields.items()})


def _key(field: Field) -> Schema:
    described = OPTIONS[field.name].full_help if field.is_option else field.accepts
    return {**field.kind.schema, "description": described}


def of(name: str) -> Schema:
    """The schema that `kvmbox config --schema` calls `name`."""
    if name == "config":
        return of_configuration()
    return of_suite() if name == "suite" else of_document(name)


def of_document(command: str) -> Schema:
    """The schema of what the --json of a command writes."""
    shape = _shape({"schema": int, **DOCUMENTS[command]})
    if command == "run":  # a machine that has not started has nothing more to tell
        shape["properties"] |= _shape(RAN)["properties"]
        shape["dependentRequired"] = {"exits": list(RAN)}
    return {"$schema": DIALECT, "title": f"kvmbox {command} --json", **shape}


_TYPES: Final = {str: "string", int: "integer", float: "number", bool: "boolean", None: "null"}


def _shape(shape: Shape) -> Schema:
    match shape:
        case dict() if TEXT in shape:
            return {"type": "object", "additionalProperties": _shape(shape[TEXT])}
        case dict():
            properties = {name: _shape(one) for name, one in shape.items()}
            return {"type": "object", "properties": properties, "required": list(properties)}
        case tuple():
            return {"anyOf": [_shape(one) for one in shape]}
        case [item]:
            return {"type": "array", "items": _shape(item)}
    return {"type": "object" if shape is dict else "array" if shape is list else _TYPES[shape]}
