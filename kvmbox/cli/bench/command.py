"""`kvmbox bench`: measure the design space on this host; show it, keep it, compare it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from kvmbox.base.compiled import is_compiled
from kvmbox.base.errors import UsageError
from kvmbox.cli.bench.output import check_output, keep_output, print_tables, progress, show_results
from kvmbox.cli.click_options import as_in_run, output, takes
from kvmbox.cli.click_types import given
from kvmbox.cli.json_files import for_people, open_output, write_output
from kvmbox.cli.messages import INTERRUPTED, report, say
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.run.options.definition import FLAG, REPEATED, Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmbox.tools.bench.measuring_plan import Plan
    from kvmbox.tools.bench.results import Results

NOTHING_MEASURED = 4


# The formatter would give each cell a line of its own.
# fmt: off
OPTIONS: Final = (
    Option("quick", "Measure few rows and configurations in three rounds (half a minute).", kind=FLAG),
    Option("only",
           "Measure only this row or configuration: a name or a pattern such as 'process/*/shm'. May be "
           "repeated. See --list.", kind=REPEATED, metavar="ROW|CONFIGURATION"),
    Option("repeat", "The number of interleaved rounds.", shown="7", metavar="N", bounds=(1, 1000)),
    Option("peer", "Measure QEMU with the same guest as well.", choices=("qemu",)),
    Option("pin", "The host CPU of measurements with one VM.", shown="last", metavar="CPU", bounds=(0, None)),
    as_in_run("cpus", help="The number of CPUs of each VM."),
    as_in_run("timeout", help="The time limit of one guest.", default=60.0, shown="60"),
    output("json_path", "all samples and a description of the host", "--json"),
    Option("plot_path", "Draw the ratios to FILE (.svg or .png; needs matplotlib).", flag="--plot",
           metavar="FILE"),
    Option("page_path", "Fill the tables between the markers of this page (needs --peer qemu).",
           flag="--page", metavar="FILE"),
    Option("markdown", "Print the tables as Markdown.", kind=FLAG),
    Option("exit_", "Replay exits from memory, without KVM, and show what kvmbox itself adds to an exit.",
           flag="--exit", choices=("none",)),
    Option("load", "Show the results in FILE, written by --json, instead of measuring.", metavar="FILE"),
    click.option("--compare", nargs=2, metavar="OLD NEW",
                 help="Compare two files, written by --json, instead of measuring."),
    Option("list_", "List all rows and configurations instead of measuring.", flag="--list", kind=FLAG),
    click.option("--divide", type=click.IntRange(1), hidden=True,
                 help="Divide the guest's iterations: for tests."),
)
# fmt: on


@click.command("bench", short_help="measure the cost of isolation on this host")
@takes(*OPTIONS)
def command(
    quick: bool,
    only: tuple[str, ...],
    repeat: int | None,
    peer: str | None,
    pin: int | None,
    cpus: int,
    timeout: float,
    json_path: str | None,
    plot_path: str | None,
    page_path: str | None,
    markdown: bool,
    exit_: str | None,
    load: str | None,
    compare: tuple[str, str] | None,
    list_: bool,
    divide: int | None,
) -> int:
    """Measure every choice of --sandbox, --seccomp and --ipc of 'kvmbox run', and pure Python.

    Each configuration is compared with QEMU (--peer), '--sandbox none' and the bare exit from KVM. The rounds
    are interleaved: each round measures every configuration once. The tables show medians, and the medians of
    the ratios in each round. With --only they also show each configuration of a row, with confidence
    intervals. docs/performance.md explains the tables.

    \b
    Exit status:
      0    measured; a configuration that failed is marked in the tables
      2    usage error, or FILE was not written by --json
      4    nothing could be measured, or FILE cannot be read
      14   the output could not be written
      130  interrupted; the results so far are shown
    """
    from kvmbox.tools.bench import measuring_plan as plans

    _refuse_ignored()
    if compare is not None:
        return _compare(compare, markdown)
    if load is not None:
        return _load(load, only, markdown, plot_path, page_path)
    if exit_ is not None:
        return _replay(repeat, divide, markdown)
    if page_path is not None and peer is None and not list_:
        raise UsageError("--page compares with QEMU", hint="add --peer qemu")
    plan = plans.choose(
        only=only, quick=quick, rounds=repeat, peer=peer is not None, compiled=is_compiled(), divide=divide
    )
    if list_:
        return _list(plan, markdown)
    check_output(plot_path, page_path)
    allow_enough()
    json_file = open_output(json_path)
    results, interrupted = _measure(plan, pin, timeout, cpus, peer=peer is not None)
    # Minutes of measuring: neither a full disk nor a terminal that is gone may lose the other's part.
    try:
        write_output(json_path, json_file, results.as_json())
    finally:
        with for_people(json_path):
            show_results(results, markdown, each_row=bool(only))
    return _finish(results, plot_path, page_path, interrupted=interrupted)


def _list(plan: Plan, markdown: bool) -> int:
    from kvmbox.tools.bench.result_tables import plan_tables

    print_tables(plan_tables(plan), markdown)
    return 0


def _finish(results: Results, plot_path: str | None, page_path: str | None, *, interrupted: bool) -> int:
    """Keep the results as a plot and a page, if they are whole. Returns the exit status."""
    if interrupted:
        say("kvmbox: interrupted")
        return INTERRUPTED
    if results.empty:
        report("nothing could be measured", "the reasons stand above; 'kvmbox doctor' looks at this host")
        return NOTHING_MEASURED
    keep_output(results, plot_path, results, page_path)
    return 0


_MEASURING = ("repeat", "pin", "cpus", "timeout", "json_path", "divide")
_CHOOSING = ("quick", "peer")
_IGNORED_BESIDE = {
    "compare": (*_MEASURING, *_CHOOSING, "only", "plot_path", "page_path", "load", "exit_", "list_"),
    "load": (*_MEASURING, *_CHOOSING, "exit_", "list_"),
    "list_": (*_MEASURING, "plot_path", "page_path"),
    "exit_": ("pin", "cpus", "timeout", "json_path", *_CHOOSING, "only", "plot_path", "page_path", "list_"),
}
"""What means nothing beside an option that measures no guest."""


def _refuse_ignored() -> None:
    for name, others in _IGNORED_BESIDE.items():
        for chosen in given(name):
            ignored = given(*others)
            if ignored:
                raise UsageError(
                    f"{chosen} measures no guest: {', '.join(ignored)} would mean nothing beside it",
                    hint=f"leave out {'it' if len(ignored) == 1 else 'them'} or {chosen}",
                )


def _measure(
    plan: Plan, pin: int | None, timeout: float, guest_cpus: int, *, peer: bool
) -> tuple[Results, bool]:
    """The results, and whether they were interrupted."""
    from kvmbox.tools.bench import host_facts
    from kvmbox.tools.bench.measurements import Jobs, guests
    from kvmbox.tools.bench.peer import find
    from kvmbox.tools.bench.results import Results
    from kvmbox.tools.bench.runner import measure_all

    if peer:
        find()
    images = guests()
    allowed = host_facts.allowed_cpus()
    cpu = allowed[-1] if pin is None else pin
    if cpu not in allowed:
        raise UsageError(
            f"--pin {cpu}: this process may not run on CPU {cpu}",
            hint=f"allowed: {', '.join(map(str, allowed))}",
        )
    facts = host_facts.facts(peer=peer)
    facts |= {"pinned_cpu": cpu, "guest_cpus": guest_cpus}
    results = Results.of(plan, facts)
    jobs = Jobs(plan, images, int(facts["tsc_khz"]), cpu, timeout, guest_cpus)
    try:
        with progress() as before:
            measure_all(plan, results, jobs.measure, before=before)
    except KeyboardInterrupt:
        return results, True
    return results, False


def _load(
    path: str, only: Sequence[str], markdown: bool, plot_path: str | None, page_path: str | None
) -> int:
    from kvmbox.tools.bench.results import load

    results = load(path)
    shown = results.narrowed(only)
    check_output(plot_path, page_path)
    show_results(shown, markdown, each_row=bool(only))
    keep_output(shown, plot_path, results, page_path)
    return 0


def _replay(rounds: int | None, divide: int | None, markdown: bool) -> int:
    from kvmbox.tools.bench.replayed import replay

    allow_enough()
    print_tables(replay(rounds, divide), markdown)
    return 0


def _compare(paths: tuple[str, str], markdown: bool) -> int:
    from kvmbox.tools.bench.compare import summary, table
    from kvmbox.tools.bench.results import load

    old, new = map(load, paths)
    print_tables([table(old, new)], markdown)
    for line in summary(old, new):
        click.echo(line)
    return 0
