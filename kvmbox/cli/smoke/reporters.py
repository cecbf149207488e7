"""The reporters of `kvmbox smoke`: one for each report that is asked for, and one for people."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Final, TextIO

import click

from kvmbox import __version__
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.cli.click_types import has_rich
from kvmbox.cli.json_files import SCHEMA
from kvmbox.cli.messages import say
from kvmbox.host.process import early_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack

    from kvmbox.tools.smoke.report.reporter import Reporter
    from kvmbox.tools.smoke.suite.test_case import Test, Verdict


REPORTS: Final = {
    f"--{name.removesuffix('_path')}": name
    for name in ("tap", "junit", "json_path", "jsonl", "markdown", "html")
}
"""The options that name the file of a report, and their names as parameters."""


class ReportContext(Value):
    """What reports have to know of a session: `before` are the verdicts of the last one, by key."""

    plain: bool
    quiet: bool
    timeout: float | None
    tests: Sequence[Test]
    before: Mapping[str, Verdict]


def open_reporters(
    stack: ExitStack,
    reports: Mapping[str, str | None],
    read: Sequence[str],
    history_file: str | None,
    context: ReportContext,
) -> list[Reporter]:
    """Every reporter that is asked for, its file open; `stack` closes them."""
    from kvmbox.host.files.file_conflicts import refuse_shared
    from kvmbox.tools.smoke.report.artefacts import command_of
    from kvmbox.tools.smoke.report.github import GithubReporter, harmless, without_commands
    from kvmbox.tools.smoke.report.outputs import STDOUT, ReportFile
    from kvmbox.tools.smoke.report.reports import for_programs

    wanted = [(option, path) for option, path in reports.items() if path is not None]
    on_stdout = [option for option, path in wanted if path == STDOUT]
    if len(on_stdout) > 1:
        raise UsageError(f"{on_stdout[0]} and {on_stdout[1]} are both on stdout", hint="name a file for one")
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    page = os.environ.get("GITHUB_STEP_SUMMARY") if in_actions else None
    written = [(option, path) for option, path in wanted if path != STDOUT]
    written += [("--history", history_file)] if history_file is not None else []
    images = [("an image", test.image) for test in context.tests]
    refuse_shared(written, [*(("a suite", path) for path in read), *images])

    def writer(option: str, path: str) -> Callable[[str], None]:
        if path == STDOUT:
            return _print
        file = ReportFile(option, path)
        stack.callback(file.close)
        return file.write

    if in_actions and on_stdout and not _is_file(sys.stdout):
        # A report has what guests print, and the runner reads this stdout.
        stack.enter_context(without_commands(_print))
    make = for_programs(
        {"schema": SCHEMA, "kvmbox": __version__}, command_of(context.timeout), context.before
    )
    found = [make[option](writer(option, path)) for option, path in wanted]
    if page:
        file = ReportFile("GITHUB_STEP_SUMMARY", page, append=True)
        stack.callback(file.close)
        found.append(make["--markdown"](file.write))
    if in_actions and not on_stdout:
        found.append(GithubReporter(_print))
    for_people: Callable[[str], None] = say if on_stdout else lambda line: _print(f"{line}\n")
    if in_actions:
        show = for_people
        for_people = lambda line: show(harmless(line))  # noqa: E731
    reporter = _for_people(for_people, context, live=not context.plain and not on_stdout and not in_actions)
    stack.callback(reporter.close)
    found.insert(0, reporter)
    return found


def _for_people(write: Callable[[str], None], context: ReportContext, *, live: bool) -> Reporter:
    from kvmbox.tools.smoke.report.artefacts import command_of
    from kvmbox.tools.smoke.report.plain import PlainReporter

    again, quiet = command_of(context.timeout), context.quiet
    if live and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb" and has_rich():
        from kvmbox.tools.smoke.report.live_table import LiveReporter, make_console

        return LiveReporter(make_console(sys.stdout), clock=time.monotonic, again=again, quiet=quiet)
    return PlainReporter(write, again=again, quiet=quiet)


def _is_file(stream: TextIO) -> bool:
    """Whether a stream goes to a file, where a report must be a report and nothing else."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or none of the system's
        return False


def _print(text: str) -> None:
    """Text on stdout, now. Three signals end a write that nobody reads."""
    early_signals.breakable = True
    try:
        click.echo(text, nl=False)
    finally:
        early_signals.breakable = False
