"""`kvmbox config`: which configuration file counts here, and what it sets."""

from __future__ import annotations

import json

import click

from kvmbox.cli.options import takes
from kvmbox.run.option import Option


@click.command("config", short_help="show the defaults that configuration files set")
@takes(
    Option(
        "schema",
        "Print the JSON Schema of kvmbox.toml or of a suite of guests, for editors.",
        choices=("config", "suite"),
    )
)
def command(schema: str | None) -> int:
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
    from kvmbox.cli import defaults
    from kvmbox.cli.main import COMMANDS, cli
    from kvmbox.cli.settings import options
    from kvmbox.errors import UsageError

    if schema is not None:
        from kvmbox.cli import schema as schemas

        made = schemas.of_configuration() if schema == "config" else schemas.of_suite()
        click.echo(json.dumps(made, indent=2))
        return 0
    found = defaults.find()
    for path in found.passed_over:
        click.echo(f"passed over, because it belongs to another user: {path}")
    if found.path is None:
        click.echo(f"no {defaults.NAME} and no [tool.kvmbox] here or above")
    else:
        click.echo(found.path)
    group = click.Context(cli, resilient_parsing=True)
    for name in found.tables:
        one = cli.get_command(group, name)
        if one is None:
            raise UsageError(
                f"{found.path}: there is no command '{name}'", hint=f"commands: {', '.join(COMMANDS)}"
            )
        for parameter, value in options(one, name, found).items():
            option = next(each for each in one.params if each.name == parameter)
            values = value if isinstance(value, list) else [value]
            click.echo("\n".join(f"  {name} {max(option.opts, key=len)} {each}" for each in values))
    return 0
