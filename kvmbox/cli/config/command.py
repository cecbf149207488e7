"""`kvmbox config`: which configuration file counts here, and what it sets."""

from __future__ import annotations

import json
import os

import click

from kvmbox.base.regular_file import refusal
from kvmbox.cli.click_options import JSON, takes
from kvmbox.cli.config.json_documents import DOCUMENTS
from kvmbox.cli.json_files import for_people, open_output, write_data
from kvmbox.run.options.definition import Option


@click.command("config", short_help="show the defaults that configuration files set")
@takes(
    Option(
        "schema",
        "Print a JSON Schema, for editors and programs: of kvmbox.toml (config), of a suite of guests "
        "(suite), or of what the --json of a command writes.",
        choices=("config", "suite", *DOCUMENTS),
    ),
    JSON,
)
def command(schema: str | None, json_path: str | None) -> int:
    """Show which configuration file counts in this directory, and what it sets.

    The file is the nearest kvmbox.toml, or pyproject.toml with a table [tool.kvmbox], in this directory or
    above. A table has the name of a command, a key is an option without its dashes. The command line wins.
    KVMBOX_CONFIG in the environment names another file, or is none.

    \b
    Example:
      [run]
      memory = "64M"
      timeout = 10
      expect = ["All tests passed"]

    \b
    Exit status:
      0    there is no configuration, or it is right
      2    usage error, or the configuration is wrong
      14   the output could not be written
    """
    from kvmbox.base.errors import UsageError
    from kvmbox.cli.config import option_defaults
    from kvmbox.cli.config.file_settings import options
    from kvmbox.cli.main import COMMANDS, cli

    if schema is not None:
        from kvmbox.cli.config import schema as schemas

        if json_path is not None:
            raise UsageError("--schema prints JSON, and --json has what is configured")
        click.echo(json.dumps(schemas.of(schema), indent=2))
        return 0
    json_file = open_output(json_path)
    found = option_defaults.find()
    lines = [f"passed over, because {_why(path)}: {path}" for path in found.passed_over]
    lines.append(found.path or f"no {option_defaults.NAME} and no [tool.kvmbox] here or above")
    group = click.Context(cli, resilient_parsing=True)
    commands: dict[str, dict[str, object]] = {}
    for name in found.tables:
        one = cli.get_command(group, name)
        if one is None:
            raise UsageError(
                f"{found.path}: there is no command '{name}'", hint=f"commands: {', '.join(COMMANDS)}"
            )
        for parameter, value in options(one, name, found).items():
            option = next(each for each in one.params if each.name == parameter)
            flag = max(option.opts, key=len)
            commands.setdefault(name, {})[flag] = value
            values = value if isinstance(value, list) else [value]
            lines += [f"  {name} {flag} {each}" for each in values]
    with for_people(json_path):
        click.echo("\n".join(lines))
    data = {"path": found.path, "passed_over": list(found.passed_over), "commands": commands}
    write_data(json_path, json_file, data)
    return 0


def _why(path: str) -> str:
    """Why a file does not count."""
    try:
        status = os.stat(path)
    except OSError:
        return "it cannot be read"
    if status.st_uid not in (0, os.geteuid()):
        return "it belongs to another user"
    return refusal(status) or "it cannot be read"
