"""`kvmbox run`: read the options, make one run, and report its outcome."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from kvmbox import early
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.cli.main import INTERRUPTED, note, report, say
from kvmbox.cli.options import CONFIGURABLE, HELP_SECTIONS, run_options
from kvmbox.cli.output_files import open_json, write_json
from kvmbox.cli.sections import SectionedCommand
from kvmbox.cli.values import is_given, is_typed
from kvmbox.errors import KvmboxError, UsageError
from kvmbox.host.distinct import refuse_shared
from kvmbox.host.open_files import allow_enough

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

EXAMPLES: Final = (
    ("kvmbox run hello32", "a bundled guest"),
    ("kvmbox run kernel.elf --timeout 10 --expect 'All tests passed' --fail-on PANIC", "a test in CI"),
    ("kvmbox run bzImage --initrd initrd.gz --append 'console=ttyS0' --memory 1G", "a Linux kernel"),
    ("kvmbox run kernel.elf --serial COM2=file:trace.log --stats", "a second serial port, and statistics"),
    ("kvmbox run kernel.elf --snapshot-when 'login: =booted.snap'", "a snapshot for 'kvmbox run --from'"),
    ("kvmbox run kernel.elf --watch", "each build of a kernel is booted"),
)


def _complete_guest(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from kvmbox.cli.completion import complete_guest

    return complete_guest(context, parameter, incomplete)


def _complete_fault(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from kvmbox.cli.completion import complete_fault

    return complete_fault(context, parameter, incomplete)


@click.command(
    "run",
    cls=SectionedCommand,
    short_help="boot a guest",
    sections=HELP_SECTIONS,
    examples=EXAMPLES,
    configurable=CONFIGURABLE,
)
@click.argument("guest", required=False, shell_complete=_complete_guest)
@run_options({"inject": _complete_fault})
def command(
    guest: str | None,
    from_file: str | None,
    stats: bool,
    no_exit_samples: bool,
    json_path: str | None,
    watch: bool,
    debug: bool,
    **options: Any,
) -> int:
    """Boot GUEST on /dev/kvm.

    GUEST is an image file or the name of a bundled guest (see 'kvmbox guests'). The console of the guest
    (COM1 and the debug console) is connected to stdin and stdout. On a terminal, Ctrl-A X ends the run and
    Ctrl-A H shows help.

    \b
    Exit status: an odd status comes from the guest, an even one from kvmbox.
      0    clean stop, or all --expect seen       odd  debug-exit: (value << 1 | 1) & 0xff
      2    usage error                            4    the run could not start
      6    the guest crashed                      8    a device process failed
      10   KVM internal error or unknown exit     12   --fail-on seen, or --expect not fulfilled
      14   kvmbox or its output failed            124  --timeout expired
      130  ended by a signal or by Ctrl-A X
    """
    from kvmbox.machine.caller import ProcessOwner
    from kvmbox.machine.machine import Machine
    from kvmbox.machine.statistics import format_stats
    from kvmbox.machine.timeline import Timeline

    if "help" in options["inject"]:
        from kvmbox.cli.inject import list_faults

        list_faults()
        return 0
    allow_enough()
    timeline = Timeline()
    wanted = {name: value for name, value in options.items() if is_given(name)}
    if guest is not None and from_file is not None:
        raise UsageError("--from names the snapshot to start from, and there is a GUEST beside it")
    if guest is None and from_file is None:  # firmware is a guest by itself
        bios = wanted.get("bios")
        if bios in (None, BUILTIN_BIOS, NO_BIOS):
            raise click.MissingParameter(
                ctx=click.get_current_context(), param_hint="'GUEST'", param_type="argument"
            )
        # A path, and never the name of a bundled guest.
        guest = wanted["bios"] = os.path.join(os.path.dirname(bios) or ".", os.path.basename(bios))
    if (stats or json_path is not None) and not no_exit_samples:
        wanted["sample_exits"] = True
    wanted |= {"console": "stdio", "say": note}
    if from_file is None:
        assert guest is not None
        machine = Machine(guest, **wanted)
    else:
        from kvmbox.machine.start_options import OF_THE_SNAPSHOT

        # What a configuration file says of machines is about those that boot.
        free = {key: value for key, value in wanted.items() if key not in OF_THE_SNAPSHOT or is_typed(key)}
        machine = Machine.from_snapshot(from_file, **free)
        timeline.mark("snapshot opened")
    json_files = [("--json", json_path)] if json_path is not None else []
    refuse_shared([*json_files, *machine.config.files_written], machine.config.files_read)
    if watch and machine.config.gdb is not None and machine.config.gdb.is_pipe:
        raise UsageError(
            "--gdb - has one pipe, and --watch boots many times",
            hint="--gdb unix:gdb.sock has a new client each time",
        )
    if watch:
        from kvmbox.cli.watch import boot_again

        arguments = sys.argv[sys.argv.index("run") + 1 :]
        paths = [path for _, path in machine.config.files_read]
        return boot_again(arguments, paths, note)
    json_file = open_json(json_path)
    try:
        result = machine.run_here(ProcessOwner(tracebacks=debug), timeline, started=_collect_garbage)
    except KvmboxError as error:
        early.raising = False  # this is how it ends, whatever signal comes now
        _write_json(json_path, json_file, {"status": error.exit_status, "reason": str(error)})
        raise
    except KeyboardInterrupt:
        early.raising = False
        _write_json(json_path, json_file, {"status": INTERRUPTED, "reason": "interrupted before the start"})
        raise
    wall = time.monotonic_ns() - timeline.started
    facts = {
        "status": result.status,
        "reason": result.reason,
        "hint": result.hint,
        "report": result.crash_report,
        "cpus": result.cpus,
        "last_lines": dict(result.last_lines),
        "core": result.core,
        "screen": None if result.screen is None else result.screen.as_json(),
        "wall_time": wall,
    }
    # First what programs read: stderr may be a pipe that nobody empties. The file may be on a full disk.
    try:
        _write_json(json_path, json_file, facts | result.statistics.as_json())
    finally:
        if stats:
            say(format_stats(result.statistics, wall))
            say(f"outcome                  {result.reason} (status {result.status})")
        if result.failed:
            report(result.reason, result.hint)
            if result.crash_report:
                say(result.crash_report)
        elif result.hint:
            say(f"hint: {result.hint}")
    return result.status


def _collect_garbage() -> None:
    """From now on. `cli.entry` has stopped it: what was made since is modules and machine, and no garbage."""
    gc.freeze()
    gc.enable()


def _write_json(path: str | None, file: TextIO | None, data: dict[str, Any]) -> None:
    if file is not None:
        import json

        write_json(path, file, json.dumps(data, indent=2) + "\n")
