"""`kvmbox smoke`: boot a suite of guests, judge each, and tell of it in the formats that others read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import click

from kvmbox.base.errors import KvmError, UsageError
from kvmbox.cli.click_options import as_in_run, output, takes
from kvmbox.cli.click_types import is_typed
from kvmbox.cli.help_sections import SectionedCommand
from kvmbox.cli.smoke.remembered import history_of, remember
from kvmbox.cli.smoke.session import run_tests
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.run.options.definition import FILE, FLAG, REPEATED, Option, Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvmbox.tools.smoke.report.history import History
    from kvmbox.tools.smoke.report.reporter import Plan
    from kvmbox.tools.smoke.suite.test_case import Test

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
        output("json_path", "the whole session as data", "--json"),
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
def command(suites: tuple[str, ...], **options: Any) -> int:
    """Boot the tests of each SUITE on /dev/kvm, and say what became of each.

    SUITE is a suite file (.toml), a unittests.cfg of kvm-unit-tests, a folder or glob of images, an image, or
    a bundled guest. docs/smoke.md describes suites, verdicts and reports.

    \b
    Exit status:
      0    every test that ran passed, and at least one did
      2    usage error, or a suite is not valid
      4    no guest can run here, or a report cannot be opened
      12   a test failed
      14   kvmbox or its output failed
      16   nothing is proven: no test passed, and none failed
      130  ended by a signal; the reports tell what was run until then
    """
    from kvmbox.tools.smoke.execute import host_requirements
    from kvmbox.tools.smoke.report.safe_text import printable
    from kvmbox.tools.smoke.suite.collect import collect

    _refuse(suites, options)
    collected = collect(suites, convention=options["convention"])
    history, history_file = history_of(options["history_path"], suites)
    plan = _plan(collected.tests, options, history)
    if options["list_only"]:
        for test in plan.tests:
            click.echo(printable(plan.label(test) + _note(test)))
        return 0
    if options["dask"] is None:
        host_requirements.check_kvm()
    allow_enough()
    summary = run_tests(plan, options, history, (collected.files, history_file))
    remember(history_file, options["history_path"], history, summary)
    return summary.status


def _refuse(suites: Sequence[str], options: Mapping[str, Any]) -> None:
    """UsageError where options contradict each other."""
    from kvmbox.tools.smoke.suite.conventions import CONVENTIONS, PATTERN

    if not suites:
        raise UsageError("kvmbox smoke needs a SUITE", hint="for example: kvmbox smoke hello32 hello64")
    known = [name for name in CONVENTIONS if name != PATTERN]
    if options["convention"] not in (None, *known):
        raise UsageError(f"--convention '{options['convention']}' is none of {', '.join(known)}")
    for name in ("record", "core"):
        if options[name] and options["logs"] is None:
            raise UsageError(f"--{name} needs --logs", hint="name the folder for what is kept of failures")
        if options[name] and options["dask"] is not None:
            raise UsageError(
                f"--{name} does not go with --dask", hint="run the test on the host that boots it"
            )
    if options["dask"] is not None and is_typed("jobs"):
        raise UsageError("--jobs does not go with --dask", hint="its workers have threads: --nthreads")


def _plan(found: Sequence[Test], options: Mapping[str, Any], history: History) -> Plan:
    """Which of the tests run, and in which order. Raises UsageError."""
    from kvmbox.tools.smoke.report.reporter import Plan
    from kvmbox.tools.smoke.suite.schedule import Shard, failures_first, select, take_shard

    tests, shard = select(found, options["groups"], options["filters"]), options["shard"]
    if shard is not None:
        # Durations from this machine alone would make parts that do not fit those of the others.
        shared = history.seconds if options["history_path"] is not None else {}
        tests = take_shard(tests, Shard.parse(shard), shared)
    if options["failed"]:
        tests = failures_first(tests, history.failed)
    return Plan(tuple(tests), options["repeat"], options["jobs"], shard, len(found) - len(tests))


def _note(test: Test) -> str:
    """What --list says behind a test's name. A list needs no /dev/kvm."""
    from kvmbox.tools.smoke.execute import host_requirements

    try:
        reason = host_requirements.why_skipped(test)
    except KvmError as error:
        return f"  (needs {', '.join(test.needs)}: {error})"
    return f"  (skipped: {reason})" if reason else ""
