"""What `kvmbox smoke` remembers between sessions: durations, and what has failed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kvmbox.base.errors import HostOutputError, UsageError
from kvmbox.cli.messages import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmbox.tools.smoke.report.history import History
    from kvmbox.tools.smoke.report.summary import Summary


def history_of(path: str | None, suites: Sequence[str]) -> tuple[History, str | None]:
    """The history, and the file that is to keep it, or None."""
    from kvmbox.tools.smoke.report.history import History
    from kvmbox.tools.smoke.report.outputs import default_history_path, read_history

    if path == "none":
        return History(), None
    if path is not None:
        return read_history(path), path
    found = default_history_path(suites, os.environ)
    if found is None:
        return History(), None
    try:
        return read_history(found), found
    except UsageError as error:  # nobody has asked for it: it must not be in the way
        say(f"kvmbox: note: {error}: it is made anew")
        return History(), found


def remember(file: str | None, asked_for: str | None, history: History, summary: Summary) -> None:
    from kvmbox.tools.smoke.report.outputs import write_history

    if file is None:
        return
    try:
        write_history(file, history.with_results(summary.results))
    except OSError as error:
        if asked_for is not None:
            raise HostOutputError(f"cannot write --history '{file}': {error.strerror}") from error
        say(f"kvmbox: note: cannot keep the history in '{file}': {error.strerror}")
