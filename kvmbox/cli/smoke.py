"""`kvmbox smoke`: boot a suite of guests, judge each, and tell of it in the formats that others read."""

from __future__ import annotations

import io
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, TextIO

import click

from kvmbox.cli.messages import say
from kvmbox.cli.options import as_in_run, output, takes
from kvmbox.cli.sections import SectionedCommand
from kvmbox.cli.values import is_typed
from kvmbox.errors import KvmError, UsageError
from kvmbox.host import early
from kvmbox.host.open_files import allow_enough
from kvmbox.run.option import FILE, FLAG, REPEATED, Option, Section

if TYPE_CHECKING:
    from kvmbox.tools.smoke.executor import Executor
    from kvmbox.tools.smoke.history import History
    from kvmbox.tools.smoke.model import Test, Verdict
    from kvmbox.tools.smoke.reporter import Reporter
    from kvmbox.tools.smoke.summary import Summary

MOST_JOBS: Final = 1024
AUTO: Final = "auto"


def _jobs(value: object) -> int:
    """How many guests run at a time. Raises ValueError."""
    if value == AUTO:
        return len(os.sched_getaffinity(0))
    text = str(value)
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= MOST_JOBS):
        raise ValueError(f"'{text}' is neither auto nor a number from 1 to {MOST_JOBS}")
    return int(text)


# The formatter would give each cell a line of its own.
# fmt: off
SECTIONS: Final = (
    Section("Which tests", (
        Option("groups", "Only tests of this group. May be repeated.", flag="-g --group", kind=REPEATED,
               metavar="GROUP"),
        Option("filters",
               "Only tests whose name contains TEXT, or matches it as a shell pattern. May be repeated.",
               flag="--filter", kind=REPEATED, metavar="TEXT"),
        Option("failed", "Begin with the tests that failed last time.", kind=FLAG),
        Option("shard", "Run part I of N. --history, the same for all parts, balances them.", metavar="I/N"),
        Option("history_path", "Where durations and failures are kept, or none.", flag="--history",
               shown="a file in ~/.cache/kvmbox", metavar="FILE"),
        Option("list_only", "List the tests instead of running them.", flag="--list", kind=FLAG),
    )),
    Section("How they run", (
        Option("jobs", "How many guests run at a time. auto: one for each CPU.", default=1,
               flag="-j --jobs", metavar="N|auto", read=_jobs, marks=FILE),
        Option("dask",
               "Boot on the workers of the Dask scheduler at ADDRESS, such as tcp://HOST:8786, instead of "
               "here.", metavar="ADDRESS"),
        as_in_run("timeout", help="The time limit of each boot, in place of the suite's."),
        Option("fail_fast", "End after the first failure.", kind=FLAG, marks=FILE),
        Option("repeat",
               "Boot each test N times, and fail those whose boots do not agree. Retries then mean nothing.",
               default=1, metavar="N", bounds=(1, 1_000_000)),
        Option("convention", "What the end of a guest means, for images without a suite file.",
               shown="kvmbox", metavar="NAME"),
    )),
    Section("Reports", (
        output("tap", "TAP 14"),
        output("junit", "JUnit XML"),
        output("jsonl", "JSON lines"),
        output("markdown", "a summary in Markdown"),
        output("html", "a page for people"),
        Option("logs", "Keep console and report of each failure in DIR.", metavar="DIR"),
        Option("record", "Record each boot, and keep the recordings of failures in --logs.", kind=FLAG),
        Option("core",
               "Keep in --logs core files of guests that crash, hang, do not end in time or lose a device "
               "process.", kind=FLAG),
        Option("plain", "Print lines also on a terminal, not a live table.", kind=FLAG, marks=FILE),
        Option("quiet", "Show failures and the sum only.", flag="-q --quiet", kind=FLAG, marks=FILE),
    )),
)
# fmt: on
"""The options by purpose."""

EXAMPLES: Final = (
    ("kvmbox smoke suite.toml -j auto --junit report.xml --logs failures", "a job of CI"),
    ("kvmbox smoke x86/unittests.cfg -g vmexit", "a group of kvm-unit-tests"),
    ("kvmbox smoke 'kernels/*.elf' --convention bootimage --timeout 10", "images without a suite"),
    ("kvmbox smoke hello32 --repeat 1000 -j auto -q", "does it always boot?"),
)


@click.command(
    "smoke",
    cls=SectionedCommand,
    short_help="boot a suite of guests, and judge each",
    sections=SECTIONS,
    examples=EXAMPLES,
)
@click.argument("suites", nargs=-1, metavar="SUITE...")
@takes(*SECTIONS)
def command(
    suites: tuple[str, ...],
    jobs: int,
    dask: str | None,
    groups: tuple[str, ...],
    filters: tuple[str, ...],
    timeout: float | None,
    fail_fast: bool,
    repeat: int,
    shard: str | None,
    failed: bool,
    history_path: str | None,
    convention: str | None,
    list_only: bool,
    tap: str | None,
    junit: str | None,
    jsonl: str | None,
    markdown: str | None,
    html: str | None,
    logs: str | None,
    record: bool,
    core: bool,
    plain: bool,
    quiet: bool,
) -> int:
    """Boot the tests of each SUITE on /dev/kvm, and say what became of each.

    SUITE is a suite file (.toml), a unittests.cfg of kvm-unit-tests, a folder or glob of images, an image, or
    a bundled guest. docs/smoke.md describes suites, verdicts and reports.

    \b
    Exit status:
      0    every test that ran passed, and at least one did
      2    usage error, or a suite is not valid
      4    no guest can run here, or a report cannot be written
      12   a test failed
      14   kvmbox or its output failed
      16   nothing is proven: no test passed, and none failed
      130  ended by a signal; the reports tell what was run until then
    """
    from kvmbox.tools.smoke import host
    from kvmbox.tools.smoke.artefacts import Artefacts
    from kvmbox.tools.smoke.collect import collect
    from kvmbox.tools.smoke.conventions import CONVENTIONS, PATTERN
    from kvmbox.tools.smoke.engine import Engine
    from kvmbox.tools.smoke.reporter import Plan
    from kvmbox.tools.smoke.schedule import Shard, failures_first, select, take_shard
    from kvmbox.tools.smoke.session import Session
    from kvmbox.tools.smoke.text import printable

    if not suites:
        raise UsageError("kvmbox smoke needs a SUITE", hint="for example: kvmbox smoke hello32 hello64")
    if convention is not None and (convention not in CONVENTIONS or convention == PATTERN):
        known = ", ".join(name for name in CONVENTIONS if name != PATTERN)
        raise UsageError(f"--convention '{convention}' is none of {known}")
    for option, wanted in (("--record", record), ("--core", core)):
        if wanted and logs is None:
            raise UsageError(f"{option} needs --logs", hint="name the folder for what is kept of failures")
        if wanted and dask is not None:
            raise UsageError(
                f"{option} does not go with --dask", hint="run the test on the host that boots it"
            )
    if dask is not None and is_typed("jobs"):
        raise UsageError("--jobs does not go with --dask", hint="its workers have threads: --nthreads")
    collected = collect(suites, convention=convention)
    tests = select(collected.tests, groups, filters)
    history, history_file = _history(history_path, suites)
    if shard is not None:
        # Durations from this machine alone would make parts that do not fit those of the others.
        tests = take_shard(tests, Shard.parse(shard), history.seconds if history_path is not None else {})
    if failed:
        tests = failures_first(tests, history.failed)
    plan = Plan(tuple(tests), repeat, jobs, shard, len(collected.tests) - len(tests))
    if list_only:
        for test in tests:
            click.echo(printable(plan.label(test) + _note(test)))
        return 0
    if dask is None:
        host.check_kvm()
    allow_enough()
    runner, skip = _executor(jobs, dask)
    # From here on a signal is answered in order: every report is complete, whenever it comes.
    early.raising = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names may have letters that the terminal has not
    reports = [
        ("--tap", tap),
        ("--junit", junit),
        ("--jsonl", jsonl),
        ("--markdown", markdown),
        ("--html", html),
    ]
    with ExitStack() as stack:
        with runner as executor:
            plan = plan.replaced(slots=executor.slots)
            reporters = _reporters(
                stack,
                reports,
                collected.files,
                history_file,
                plain=plain,
                quiet=quiet,
                timeout=timeout,
                tests=tests,
                before=history.verdicts,
            )
            artefacts = Artefacts(logs, record=record, core=core) if logs is not None else None
            summary = Engine(
                Session(plan.tests, repeat=plan.repeat, fail_fast=fail_fast, skip=skip),
                executor,
                reporters,
                plan=plan,
                timeout=timeout,
                artefacts=artefacts,
                interrupted=lambda: bool(early.received),
                durations=history.seconds,
            ).run()
        # The reports have told the status: a signal that comes now does not change it.
        early.answered = True
    _remember(history_file, history_path, history, summary)
    return summary.status


def _note(test: Test) -> str:
    """What --list says behind a test's name. A list needs no /dev/kvm."""
    from kvmbox.tools.smoke import host

    try:
        reason = host.why_skipped(test)
    except KvmError as error:
        return f"  (needs {', '.join(test.needs)}: {error})"
    return f"  (skipped: {reason})" if reason else ""


def _executor(jobs: int, dask: str | None) -> tuple[Executor, Callable[[Test], str | None]]:
    """What boots, this machine or the workers of a Dask scheduler; and why a test is skipped there."""
    from kvmbox.tools.smoke.host import why_skipped

    if dask is None:
        from kvmbox.tools.smoke.local import LocalExecutor
        from kvmbox.tools.smoke.starts import ForkingExecutor

        return ForkingExecutor(LocalExecutor(jobs)), why_skipped
    import logging

    from kvmbox.tools.smoke.dask_executor import connect

    logging.disable()  # Dask logs at length what an error here says in a line
    remote = connect(dask)

    def skip(test: Test) -> str | None:
        if test.start is not None:
            return "--dask does not fork tests from a start"  # a snapshot is bound to the host it was made on
        return why_skipped(test, hardware=lambda: remote.has_hardware_virtualization)

    return remote, skip


def _reporters(
    stack: ExitStack,
    reports: Sequence[tuple[str, str | None]],
    read: Sequence[str],
    history_file: str | None,
    *,
    plain: bool,
    quiet: bool,
    timeout: float | None,
    tests: Sequence[Test],
    before: Mapping[str, Verdict],
) -> list[Reporter]:
    """Every reporter that is asked for, its file open; `stack` closes them."""
    from kvmbox.host.distinct import refuse_shared
    from kvmbox.tools.smoke.outputs import STDOUT, ReportFile
    from kvmbox.tools.smoke.report_github import GithubReporter, harmless, without_commands
    from kvmbox.tools.smoke.report_html import HtmlReporter
    from kvmbox.tools.smoke.report_jsonl import JsonLinesReporter
    from kvmbox.tools.smoke.report_junit import JunitReporter
    from kvmbox.tools.smoke.report_markdown import MarkdownReporter
    from kvmbox.tools.smoke.report_tap import TapReporter

    wanted = [(option, path) for option, path in reports if path is not None]
    on_stdout = [option for option, path in wanted if path == STDOUT]
    if len(on_stdout) > 1:
        raise UsageError(f"{on_stdout[0]} and {on_stdout[1]} are both on stdout", hint="name a file for one")
    in_actions = os.environ.get("GITHUB_ACTIONS") == "true"
    page = os.environ.get("GITHUB_STEP_SUMMARY") if in_actions else None
    written = [(option, path) for option, path in wanted if path != STDOUT]
    written += [("--history", history_file)] if history_file is not None else []
    images = [("an image", test.image) for test in tests]
    refuse_shared(written, [*(("a suite", path) for path in read), *images])

    def writer(option: str, path: str) -> Callable[[str], None]:
        if path == STDOUT:
            return _print
        file = ReportFile(option, path)
        stack.callback(file.close)
        return file.write

    if in_actions and on_stdout and not _is_file(sys.stdout):
        import secrets

        # A report has what guests print, and the runner reads this stdout.
        stack.enter_context(without_commands(_print, secrets.token_hex(16)))
    kinds: dict[str, Callable[[Callable[[str], None]], Reporter]] = {
        "--tap": TapReporter,
        "--junit": lambda write: JunitReporter(write, now=time.time, host=os.uname().nodename),
        "--jsonl": JsonLinesReporter,
        "--markdown": MarkdownReporter,
        "--html": lambda write: HtmlReporter(
            write, clock=time.monotonic, again=_again(timeout), before=before
        ),
    }
    found = [kinds[option](writer(option, path)) for option, path in wanted]
    if page:
        file = ReportFile("GITHUB_STEP_SUMMARY", page, append=True)
        stack.callback(file.close)
        found.append(MarkdownReporter(file.write))
    if in_actions and not on_stdout:
        found.append(GithubReporter(_print))
    for_people: Callable[[str], None] = say if on_stdout else lambda line: _print(f"{line}\n")
    if in_actions:
        show = for_people
        for_people = lambda line: show(harmless(line))  # noqa: E731
    reporter = _for_people(
        for_people, live=not plain and not on_stdout and not in_actions, quiet=quiet, timeout=timeout
    )
    stack.callback(reporter.close)
    found.insert(0, reporter)
    return found


def _for_people(write: Callable[[str], None], *, live: bool, quiet: bool, timeout: float | None) -> Reporter:
    from kvmbox.tools.smoke.report_plain import PlainReporter

    command_of = _again(timeout)
    if live and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        from importlib.util import find_spec

        if find_spec("rich") is not None:
            from kvmbox.tools.smoke.report_live import LiveReporter, make_console

            return LiveReporter(make_console(sys.stdout), clock=time.monotonic, again=command_of, quiet=quiet)
    return PlainReporter(write, again=command_of, quiet=quiet)


def _again(timeout: float | None) -> Callable[[Test], str]:
    """The command that boots a test alone."""
    from kvmbox.tools.smoke.artefacts import again
    from kvmbox.tools.smoke.verdict import boot_of

    return lambda test: again(boot_of(test, timeout=timeout))


def _is_file(stream: TextIO) -> bool:
    """Whether a stream goes to a file, where a report must be a report and nothing else."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):  # closed, or none of the system's
        return False


def _print(text: str) -> None:
    """Text on stdout, now. Three signals end a write that nobody reads."""
    early.breakable = True
    try:
        click.echo(text, nl=False)
    finally:
        early.breakable = False


def _history(path: str | None, suites: Sequence[str]) -> tuple[History, str | None]:
    """The history, and the file that is to keep it, or None."""
    from kvmbox.tools.smoke.history import History
    from kvmbox.tools.smoke.outputs import default_history_path, read_history

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


def _remember(file: str | None, asked_for: str | None, history: History, summary: Summary) -> None:
    from kvmbox.errors import HostOutputError
    from kvmbox.tools.smoke.outputs import write_history

    if file is None:
        return
    try:
        write_history(file, history.with_results(summary.results))
    except OSError as error:
        if asked_for is not None:
            raise HostOutputError(f"cannot write --history '{file}': {error.strerror}") from error
        say(f"kvmbox: note: cannot keep the history in '{file}': {error.strerror}")
