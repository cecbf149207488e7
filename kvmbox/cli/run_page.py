"""The file of `kvmbox run --html`: opened before the run, and written at its end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from kvmbox.cli.output_files import open_output, write_output
from kvmbox.parts.screen.text_picture import prepare
from kvmbox.run.result import Ending

# Now: a confined VMM can read no file of its own, and load no shared object.
from kvmbox.tools.smoke.run_page import run_page

OPTION = "--html"


class RunPage:
    """One page to be."""

    def __init__(self, path: str, messages: Sequence[str]) -> None:
        """`messages` are those for the person, as they come. Raises StartError."""
        self._path = path
        self._messages = messages
        self._file = open_output(path, OPTION)
        prepare()

    def write_failure(self, status: int, reason: str, error: BaseException, wall: int) -> None:
        """The run could not start. Raises HostOutputError."""
        self.write(Ending(status, reason, getattr(error, "hint", None), "", ""), wall)

    def write(self, ending: Ending, wall: int) -> None:
        """How the run ended, and in how many ns. Raises HostOutputError."""
        command = shlex.join(["kvmbox", *sys.argv[1:]])
        text = run_page(command, ending, "\n".join(self._messages), wall)
        write_output(self._path, self._file, text, OPTION)
