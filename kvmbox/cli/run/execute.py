"""Carries out a command line of `kvmbox run`: makes the run, and reports its outcome. Click is not needed."""

from __future__ import annotations

import os
import sys
import time

from kvmbox.base import bytecode
from kvmbox.base.errors import KvmboxError, UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.cli.messages import note, report, say
from kvmbox.host.files.descriptor_limit import allow_enough
from kvmbox.host.process import early_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kvmbox.run.api.machine import Machine
    from kvmbox.run.result.run_result import RunResult
    from kvmbox.run.result.stage_times import Timeline


REPORTS = {"json_path": "--json", "html": "--html"}
"""What a run is reported in, by option."""


class Line(Value):
    """A command line that was read: the guest, or None; the values of options that it or a configuration file
    gives, by name; the names of options that the line itself has.
    """

    guest: str | None
    values: dict[str, Any]
    typed: frozenset[str]


def carry_out(line: Line) -> int:
    """Boot what `line` asks for; returns the exit status."""
    from kvmbox.run.frontend import ProcessOwner
    from kvmbox.run.result.stage_times import Timeline

    allow_enough()
    timeline = Timeline()
    machine = _machine(line, timeline)
    paths = {flag: line.values[name] for name, flag in REPORTS.items() if name in line.values}
    written = [*paths.items(), *machine.config.files_written]
    if written:
        from kvmbox.cli.json_files import refuse_stdout
        from kvmbox.host.files.file_conflicts import refuse_shared

        refuse_stdout(written)
        refuse_shared(written, machine.config.files_read)
    if line.values.get("watch"):
        return _watch(machine)
    reports = None
    if paths:
        from kvmbox.cli.run.report_files import RunReports

        reports = RunReports(paths, machine.messages)
    caller = ProcessOwner(tracebacks=bool(line.values.get("debug")))
    try:
        if reports is not None:
            reports.open()
        result = machine.run_here(caller, timeline, started=bytecode.loaded)
    except (KvmboxError, KeyboardInterrupt) as error:
        early_signals.raising = False  # this is how it ends, whatever signal comes now
        if reports is not None:
            reports.fail(error, time.monotonic_ns() - timeline.started)
        raise
    wall = time.monotonic_ns() - timeline.started
    # First what programs read: stderr may be a pipe that nobody empties.
    try:
        if reports is not None:
            reports.write(result, wall)
    finally:
        _print_ending(result, wall, line.values)
    return result.status


def _machine(line: Line, timeline: Timeline) -> Machine:
    from kvmbox.run.api.machine import Machine
    from kvmbox.run.options.definition import IMAGE
    from kvmbox.run.options.option_table import PARAMETERS, names

    given = line.values
    options = {name: value for name, value in given.items() if name in PARAMETERS}
    path = given.get("from_file")
    if line.guest is not None and path is not None:
        raise UsageError("--from names the snapshot to start from, and there is a GUEST beside it")
    if (given.get("stats") or "json_path" in given) and not given.get("no_exit_samples"):
        options["sample_exits"] = True
    if "html" in given:
        options["transcript"] = True
    options |= {"console": "stdio", "say": note}
    if path is not None:
        # What a configuration file says of machines is about those that boot.
        free = {key: value for key, value in options.items() if key not in names(IMAGE) or key in line.typed}
        machine = Machine.from_snapshot(path, **free)
        timeline.mark("snapshot opened")
        return machine
    guest = line.guest
    bios = options.get("bios", NO_BIOS)
    if guest is None and bios not in (BUILTIN_BIOS, NO_BIOS):
        # Firmware is a guest by itself: a path, and never the name of a bundled guest.
        guest = options["bios"] = os.path.join(os.path.dirname(bios) or ".", os.path.basename(bios))
    return Machine(guest, **options)


def _watch(machine: Machine) -> int:
    gdb = machine.config.of_part("gdb")
    if gdb is not None and gdb.is_pipe:
        raise UsageError(
            "--gdb - has one pipe, and --watch boots many times",
            hint="--gdb unix:gdb.sock has a new client each time",
        )
    from kvmbox.cli.run.rerun_on_change import boot_again

    arguments = sys.argv[sys.argv.index("run") + 1 :]
    return boot_again(arguments, [path for _, path in machine.config.files_read], note)


def _print_ending(result: RunResult, wall: int, options: dict[str, Any]) -> None:
    if options.get("stats"):
        from kvmbox.run.result.statistics_as_text import format_net, format_stats

        nets = map(format_net, result.facts.get("nets", ()))
        say("\n".join([format_stats(result.statistics, wall), *nets]))
        say(f"outcome                  {result.reason} (status {result.status})")
    ports = ",".join(options.get("serial", ())).upper()
    if "=STDIO" in ports and "COM1=" not in ports and result.statistics.bytes_out.get("COM1"):
        note("COM1 printed, and nobody got it: another port is on stdio; --serial COM1=file:PATH keeps it")
    if result.failed:
        report(result.reason, result.hint)
        if text := result.crash_report if options.get("report") == "full" else result.summary:
            say(text)
    elif result.hint:
        say(f"hint: {result.hint}")
