"""`kvmbox guests`: what is bundled, and what each guest proves."""

from __future__ import annotations

import click

from kvmbox.base.errors import StartError
from kvmbox.boot import bundled
from kvmbox.cli.click_options import JSON, takes
from kvmbox.cli.json_files import show
from kvmbox.run.options.definition import FLAG, Option


@click.command("guests", short_help="list the bundled guests")
@takes(Option("paths", "Print the path of each image instead of its purpose.", kind=FLAG), JSON)
def command(paths: bool, json_path: str | None) -> int:
    """List the bundled guests, which 'kvmbox run NAME' boots by name."""
    found = bundled.catalogue()
    if not found:
        raise StartError(f"no guest is built in {bundled.DIRECTORY}", hint="in a source tree: make guests")
    width = max(len(guest.name) for guest in found)
    lines = []
    for guest in found:
        options = f"  [{' '.join(guest.options)}]" if guest.options else ""
        lines.append(f"{guest.name:<{width}}  {guest.path if paths else guest.proves + options}")
    show("\n".join(lines), {"guests": [one.as_dict() for one in found]}, json_path)
    return 0
