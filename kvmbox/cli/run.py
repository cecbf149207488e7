"""`kvmbox run`: options in, one run, and what a person or a script wants to know of it out."""

from __future__ import annotations

import gc
import time
from typing import Any, TextIO

import click

from kvmbox import early
from kvmbox.channel.transports import DEFAULT_IPC, IPC_CHOICES
from kvmbox.cli.main import INTERRUPTED, report, say
from kvmbox.cli.open_files import allow_enough
from kvmbox.cli.output_files import open_json, write_json
from kvmbox.cli.values import ADDRESS, MEMORY_SIZE, OPTIONAL_PORT, POSITIVE_BYTES, SECONDS, is_given
from kvmbox.errors import KvmboxError
from kvmbox.host.distinct import refuse_shared
from kvmbox.machine import config
from kvmbox.processes.pool import SANDBOX_CHOICES


@click.command("run", short_help="boot a guest")
@click.argument("guest")
@click.option(
    "--memory",
    type=MEMORY_SIZE,
    metavar="SIZE",
    help="Guest memory, such as 64M or 1G.  [default: 128M]",
)
@click.option("--append", metavar="TEXT", help="Command line behind the image's name.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="FILE[,ARGUMENTS]",
    help="A Multiboot module; may be repeated.",
)
@click.option(
    "--mode",
    type=click.Choice(config.MODES),
    help="auto: by content (Multiboot, ELF32, ELF64). real: a flat 16-bit image.  [default: auto]",
)
@click.option(
    "--load-address",
    type=ADDRESS,
    metavar="ADDRESS",
    help="Where --mode real loads the image and enters it.  [default: 0x7c00]",
)
@click.option(
    "--serial",
    multiple=True,
    metavar="PORT=BACKEND",
    help="COM1..COM4 or MMIO = stdio, null, pty or file:PATH; may be repeated.  [default: COM1=stdio]",
)
@click.option(
    "--debugcon",
    metavar="BACKEND",
    help="The debug console (port 0xe9): stdout, stderr, null, file:PATH, or auto: stdout, and what the port "
    "on stdio prints as well is shown once.  [default: auto]",
)
@click.option(
    "--serial-overflow",
    type=click.Choice(config.SERIAL_OVERFLOWS),
    help="When the host is slow: let the guest wait, or drop and count.  [default: wait]",
)
@click.option(
    "--serial-limit",
    type=POSITIVE_BYTES,
    metavar="BYTES",
    help="End the run when a stream has got this much output (status 12).",
)
@click.option("--uart-pace", is_flag=True, help="UARTs transmit at the speed of their divisor, not at once.")
@click.option(
    "--rtc-base",
    metavar="WHEN",
    help="What the RTC shows at first: utc, localtime or an ISO date and time.  [default: utc]",
)
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="End the run so long after its start (status 124)."
)
@click.option(
    "--expect",
    multiple=True,
    metavar="TEXT",
    help="End with status 0 once the guest has printed this; may be repeated: all of them.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="TEXT",
    help="End with status 12 once the guest has printed this; may be repeated: any of them.",
)
@click.option(
    "--success-status",
    type=click.IntRange(1, 255),
    metavar="N",
    help="The odd debug-exit status that means success: 0 for it, 12 for any other end.",
)
@click.option(
    "--debug-exit",
    type=OPTIONAL_PORT,
    metavar="PORT",
    help="The debug-exit port, or none.  [default: 0xf4]",
)
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOX_CHOICES),
    help="Where device models run: in the vCPU thread, in threads, in a process per device type, or in one "
    "per device.  [default: process]",
)
@click.option(
    "--seccomp",
    type=click.Choice(config.SECCOMP_CHOICES),
    help="What device processes may call: a filter's list, read and write alone, or anything."
    "  [default: filter]",
)
@click.option(
    "--ipc",
    type=click.Choice(IPC_CHOICES),
    help=f"How requests reach them: a socket, two pipes, or shared memory.  [default: {DEFAULT_IPC}]",
)
@click.option("--no-reboot", is_flag=True, help="A reset ends the run with status 0 instead of rebooting.")
@click.option(
    "--on-device-crash",
    type=click.Choice(config.CRASH_ANSWERS),
    help="When a device process dies, hangs or lies: end with status 8, restart it so that the guest cannot "
    "tell, or let its ports read as ones.  [default: fail]",
)
@click.option(
    "--restart-budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many restarts a run may have.  [default: 16]",
)
@click.option(
    "--require",
    multiple=True,
    metavar="LAYER",
    help="A sandbox layer that must not be missing; see 'kvmbox doctor'. May be repeated.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="LAYER",
    help="A sandbox layer to leave out, for experiments; see 'kvmbox doctor'. May be repeated.",
)
@click.option(
    "--pin",
    metavar="auto|none|CPU",
    help="The CPU that the vCPU and its device processes share.  [default: auto]",
)
@click.option("--record", metavar="FILE", help="Record all device requests in FILE, for 'kvmbox replay'.")
@click.option(
    "--record-limit",
    type=POSITIVE_BYTES,
    metavar="SIZE",
    help="Stop recording, not the run, before FILE gets larger than this.",
)
@click.option("--stats", is_flag=True, help="Print what the run did, on stderr, at its end.")
@click.option("--json", "json_path", metavar="FILE", help="Write outcome and statistics to FILE.")
@click.option("--debug", is_flag=True, help="Print tracebacks.")
def command(guest: str, stats: bool, json_path: str | None, debug: bool, **options: Any) -> int:
    """Boot GUEST, a file or the name of a bundled guest ('kvmbox guests'), on /dev/kvm.

    The guest's console (COM1 and the debug console) is on stdin and stdout; Ctrl-A X leaves, Ctrl-A H helps.

    \b
    Exit status: odd is the guest's verdict, even is kvmbox's.
      0    clean stop, or all --expect seen       odd  debug-exit: (value << 1 | 1) & 0xff
      2    usage    4  could not start            6    the guest crashed
      8    a device process died, hung or lied    10   KVM internal error or unknown exit
      12   --fail-on, or --expect not fulfilled   14   kvmbox or its output failed
      124  --timeout                              130  signal, Ctrl-A X
    """
    from kvmbox.machine.caller import ProcessOwner
    from kvmbox.machine.machine import Machine
    from kvmbox.machine.statistics import format_stats
    from kvmbox.machine.timeline import Timeline

    gc.enable()  # `cli.entry` has disabled it for the imports
    allow_enough()
    timeline = Timeline()
    wanted = {name: value for name, value in options.items() if is_given(name)}
    machine = Machine(guest, console="stdio", say=lambda text: say(f"kvmbox: {text}"), **wanted)
    json_files = [("--json", json_path)] if json_path is not None else []
    refuse_shared([*json_files, *machine.config.files_written], machine.config.files_read)
    json_file = open_json(json_path)
    try:
        result = machine.run_here(ProcessOwner(tracebacks=debug), timeline)
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


def _write_json(path: str | None, file: TextIO | None, data: dict[str, Any]) -> None:
    if file is not None:
        import json

        write_json(path, file, json.dumps(data, indent=2) + "\n")
