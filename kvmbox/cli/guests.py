"""`kvmbox guests`: what is bundled, and what each guest proves."""

from __future__ import annotations

import click

from kvmbox.base.errors import StartError
from kvmbox.boot import bundled
from kvmbox.cli.click_options import JSON, takes
from kvmbox.cli.json_files import for_people, open_output, write_data
from kvmbox.run.options.definition import FLAG, Option


@click.command("guests", short_help="list the bundled guests")
@takes(Option("paths", "Print the path of each image instead of its purpose.", kind=FLAG), JSON)
def command(paths: bool, json_path: str | None) -> int:
    """List the bundled guests, which 'kvmbox run NAME' boots by name."""
    found = bundled.catalogue()
    if not found:
        raise StartError(f"no guest is built in {bundled.DIRECTORY}", hint="in a source tree: make guests")
    width = max(len(guest.name) for guest in found)
    json_file = open_output(json_path)
    with for_people(json_path):
        for guest in found:
            options = f"  [{' '.join(guest.options)}]" if guest.options else ""
            click.echo(f"{guest.name:<{width}}  {guest.path if paths else guest.proves + options}")
    data = [
        {"name": one.name, "path": str(one.path), "proves": one.proves, "options": list(one.options)}
        for one in found
    ]
    write_data(json_path, json_file, {"guests": data})
    return 0
