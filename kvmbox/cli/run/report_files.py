"""The files of `kvmbox run --json` and `--html`: opened before the run, and written at its end.

Each is written, whatever becomes of the other one. A file that cannot be written makes a failure of a
success, as every lost output does. Beside any other end it is one more line: that end says more.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TextIO

from kvmbox.base.errors import HostOutputError, KvmboxError
from kvmbox.base.outcome import CLEAN
from kvmbox.cli.json_files import open_output, write_data, write_output
from kvmbox.cli.messages import INTERRUPTED, note
from kvmbox.run.result.run_result import Ending

if TYPE_CHECKING:
    from kvmbox.run.result.run_result import RunResult

JSON: Final = "--json"
HTML: Final = "--html"


class RunReports:
    """The reports of one run."""

    def __init__(self, paths: Mapping[str, str], messages: Sequence[str]) -> None:
        """`paths` are by option, and `messages` those for the person, as they come."""
        self._json_path, self._html, self._messages = paths.get(JSON), paths.get(HTML), messages
        self._json: TextIO | None = None
        self._page: TextIO | None = None

    def open(self) -> None:
        """Raises StartError: `fail` then tells it in the files that are open."""
        self._json = open_output(self._json_path)
        if self._html is not None:
            # Now: a confined VMM can read no file of its own, and load no shared object.
            from kvmbox.parts.screen.text_picture import prepare
            from kvmbox.tools.smoke.report import run_page  # noqa: F401

            self._page = open_output(self._html, HTML)
            prepare()

    def fail(self, error: KvmboxError | KeyboardInterrupt, wall: int) -> None:
        """The run could not start. `wall` is the time that it took, in ns."""
        ending = Ending(INTERRUPTED, "interrupted before the start", None, "", "")
        if isinstance(error, KvmboxError):
            ending = Ending(error.exit_status, str(error), error.hint, "", "")
        self._write(ending, {"status": ending.status, "reason": ending.reason}, wall)

    def write(self, result: RunResult, wall: int) -> None:
        """How the run ended. HostOutputError if that makes a failure of it."""
        self._write(result, result.as_json(wall), wall)

    def _write(self, ending: Ending, data: dict[str, Any], wall: int) -> None:
        lost: list[HostOutputError] = []
        succeeded = ending.status == CLEAN or bool(ending.status & 1)
        try:
            self._write_page(ending, wall)
        except HostOutputError as error:
            lost.append(error)
            # The other file is to say how the command ends.
            data |= {"status": error.exit_status, "reason": str(error)} if succeeded else {}
        try:
            write_data(self._json_path, self._json, data)
        except HostOutputError as error:
            lost.append(error)
        decisive = lost.pop(0) if lost and succeeded else None
        for other in lost:
            note(str(other))
        if decisive is not None:
            raise decisive

    def _write_page(self, ending: Ending, wall: int) -> None:
        if self._page is not None:
            from kvmbox.tools.smoke.report.run_page import run_page

            command = shlex.join(["kvmbox", *sys.argv[1:]])
            text = run_page(command, ending, "\n".join(self._messages), wall)
            write_output(self._html, self._page, text, HTML)
