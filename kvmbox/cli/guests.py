"""`kvmbox guests`: what is bundled, and what each guest proves."""

from __future__ import annotations

import click

from kvmbox.boot import bundled
from kvmbox.cli.options import takes
from kvmbox.errors import StartError
from kvmbox.run.option import FLAG, Option


@click.command("guests", short_help="list the bundled guests")
@takes(Option("paths", "Print the path of each image instead of its purpose.", kind=FLAG))
def command(paths: bool) -> int:
    """List the bundled guests, which 'kvmbox run NAME' boots by name."""
    found = bundled.catalogue()
    if not found:
        raise StartError(f"no guest is built in {bundled.DIRECTORY}", hint="in a source tree: make guests")
    width = max(len(guest.name) for guest in found)
    for guest in found:
        options = f"  [{' '.join(guest.options)}]" if guest.options else ""
        click.echo(f"{guest.name:<{width}}  {guest.path if paths else guest.proves + options}")
    return 0
