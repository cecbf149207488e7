"""Writes the manual pages, from the help texts, with click-man.

python tools/man_pages.py DIRECTORY      # kvmbox and its dependencies can be imported
"""

from __future__ import annotations

import os
import re
import sys
from inspect import signature
from pathlib import Path

import click
from click_man.core import write_man_pages

from kvmbox import __version__
from kvmbox.cli.main import COMMANDS, cli


def write(directory: Path) -> None:
    """Write kvmbox.1 and a page of each command to `directory`."""
    # What a configuration file of this directory sets is nobody else's default.
    os.environ["KVMBOX_CONFIG"] = "none"
    directory.mkdir(parents=True, exist_ok=True)
    commands = {name: cli.get_command(click.Context(cli), name) for name in COMMANDS}
    for command in commands.values():  # click-man 0.4 stumbles over what is hidden
        if command is not None:
            command.params = [one for one in command.params if not getattr(one, "hidden", False)]
    # click-man looks for commands that are there already; ours are imported when they are called.
    eager = click.Group("kvmbox", {name: one for name, one in commands.items() if one}, help=cli.help)
    eager.params = cli.params
    # A date would make each build another one. click-man 0.4, which Debian 13 has, takes none.
    dated = {"date": " "} if "date" in signature(write_man_pages).parameters else {}
    write_man_pages("kvmbox", eager, version=__version__, target_dir=str(directory), **dated)
    for page in directory.iterdir():
        page.write_text(mended(page.read_text(encoding="utf-8")), encoding="utf-8")


def mended(page: str) -> str:
    """What click-man writes, with the lines of a help text as they are behind \\b, and as text if they begin
    with ', which would be a request of roff.
    """
    page = re.sub("^'", r"\\(aq", page, flags=re.MULTILINE)
    return re.sub("^\b\n((?:[^.].*\n)+)", r".nf\n\1.fi\n", page, flags=re.MULTILINE)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    write(Path(sys.argv[1]))
