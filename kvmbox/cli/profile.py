"""`kvmbox profile`: the hottest functions of a profile."""

from __future__ import annotations

import click

from kvmbox.base.errors import StartError
from kvmbox.cli.click_options import JSON, takes
from kvmbox.cli.json_files import STDOUT, show
from kvmbox.host.files.file_conflicts import refuse_shared
from kvmbox.run.options.definition import Option


@click.command("profile", short_help="show the hottest functions of a profile")
@click.argument("file")
@takes(Option("top", "How many functions to show.", default=20, metavar="N", bounds=(1, 100_000)), JSON)
def command(file: str, top: int, json_path: str | None) -> int:
    """Show the hottest functions of FILE, a profile of 'kvmbox run --profile FILE'.

    "self" counts the samples in the function itself, "total" also those in the functions that it called.
    FILE has collapsed stacks, or is in speedscope's format. For a picture, open FILE in
    https://www.speedscope.app.

    \b
    Exit status:
      0    done
      2    usage error
      4    FILE cannot be read, or is not a profile
      14   kvmbox failed
    """
    from kvmbox.parts.profile import formats
    from kvmbox.parts.profile.hottest import as_data, table

    if json_path not in (None, STDOUT):
        refuse_shared([("--json", json_path)], [("the profile", file)])
    profile = formats.read(_content(file), file)
    show(table(profile, top), as_data(profile), json_path)
    return 0


def _content(path: str) -> bytes:
    """The bytes of a regular file. Raises StartError."""
    from kvmbox.base.regular_file import read_regular_file
    from kvmbox.parts.profile.formats import MOST_BYTES

    try:
        return read_regular_file(path, MOST_BYTES)
    except OSError as error:
        raise StartError(f"cannot read the profile '{path}': {error.strerror}") from error
