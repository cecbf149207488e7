"""`kvmbox run`: options in, one run, and what a person or a script wants to know of it out."""

from __future__ import annotations

import gc
import os
import time
from typing import TYPE_CHECKING, Any, Literal, TextIO

import click

from kvmbox import early, layout
from kvmbox.channel.transports import DEFAULT_IPC, IPC_CHOICES
from kvmbox.cli.main import INTERRUPTED, report, say
from kvmbox.cli.open_files import allow_enough
from kvmbox.cli.output_files import open_json, refuse_shared, write_json
from kvmbox.cli.values import (
    ADDRESS,
    MEMORY_SIZE,
    OPTIONAL_PORT,
    POSITIVE_BYTES,
    SECONDS,
    parse_module,
    parse_rtc_base,
)
from kvmbox.errors import KvmboxError, UsageError

if TYPE_CHECKING:
    from kvmbox.machine.config import RunConfig
    from kvmbox.processes.pool import Design


@click.command("run", short_help="boot a guest")
@click.argument("guest")
@click.option(
    "--memory",
    type=MEMORY_SIZE,
    default=layout.DEFAULT_MEMORY,
    metavar="SIZE",
    help="Guest memory, such as 64M or 1G.  [default: 128M]",
)
@click.option("--append", default="", metavar="TEXT", help="Command line behind the image's name.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="FILE[,ARGUMENTS]",
    help="A Multiboot module; may be repeated.",
)
@click.option(
    "--mode",
    type=click.Choice(["auto", "real"]),
    default="auto",
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
    default="auto",
    metavar="BACKEND",
    help="The debug console (port 0xe9): stdout, stderr, null, file:PATH, or auto: stdout, and what the port "
    "on stdio prints as well is shown once.  [default: auto]",
)
@click.option(
    "--serial-overflow",
    type=click.Choice(["wait", "drop"]),
    default="wait",
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
    default="utc",
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
    default=layout.DEBUG_EXIT_PORT,
    metavar="PORT",
    help="The debug-exit port, or none.  [default: 0xf4]",
)
@click.option(
    "--sandbox",
    type=click.Choice(["none", "thread", "process", "per-device"]),
    default="process",
    help="Where device models run: in the vCPU thread, in threads, in a process per device type, or in one "
    "per device.  [default: process]",
)
@click.option(
    "--seccomp",
    type=click.Choice(["filter", "strict", "off"]),
    default=None,
    help="What device processes may call: a filter's list, read and write alone, or anything."
    "  [default: filter]",
)
@click.option(
    "--ipc",
    type=click.Choice(IPC_CHOICES),
    default=None,
    help=f"How requests reach them: a socket, two pipes, or shared memory.  [default: {DEFAULT_IPC}]",
)
@click.option("--no-reboot", is_flag=True, help="A reset ends the run with status 0 instead of rebooting.")
@click.option(
    "--on-device-crash",
    type=click.Choice(["fail", "restart", "all-ones"]),
    default="fail",
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
    default="auto",
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
def command(
    guest: str,
    memory: int,
    append: str,
    modules: tuple[str, ...],
    mode: Literal["auto", "real"],
    load_address: int | None,
    serial: tuple[str, ...],
    debugcon: str,
    serial_overflow: str,
    serial_limit: int | None,
    uart_pace: bool,
    rtc_base: str,
    timeout: float | None,
    expect: tuple[str, ...],
    fail_on: tuple[str, ...],
    success_status: int | None,
    debug_exit: int | None,
    sandbox: str,
    seccomp: str | None,
    ipc: str | None,
    no_reboot: bool,
    on_device_crash: str,
    restart_budget: int | None,
    require: tuple[str, ...],
    without: tuple[str, ...],
    pin: str,
    record: str | None,
    record_limit: int | None,
    stats: bool,
    json_path: str | None,
    debug: bool,
) -> int:
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
    from kvmbox import bundled
    from kvmbox.host.serial import parse_debugcon, serial_plan
    from kvmbox.machine.config import RunConfig
    from kvmbox.machine.run import run
    from kvmbox.machine.statistics import format_stats
    from kvmbox.machine.timeline import Timeline
    from kvmbox.sandbox import layers

    gc.enable()  # `cli.entry` has disabled it for the imports
    allow_enough()
    timeline = Timeline()
    path, flat = guest, False
    found = bundled.find(guest)
    if found is not None and not _is_file(guest):
        path, flat = str(found), bundled.is_flat(found)
    if load_address is not None and mode != "real" and not flat:
        raise UsageError("--load-address needs --mode real", hint="other images say where they belong")
    if success_status is not None and success_status % 2 == 0:
        raise UsageError(
            f"--success-status {success_status} is even, a guest's own statuses are odd",
            hint="a guest that writes V to the debug-exit port ends with (V << 1 | 1) & 0xff",
        )
    if any(not text for text in (*expect, *fail_on)):
        raise UsageError("--expect and --fail-on want a text that is not empty")
    if success_status is not None and debug_exit is None:
        raise UsageError(
            "--success-status needs the debug-exit port, and --debug-exit is none",
            hint="only a write to that port gives an odd status",
        )
    if record_limit is not None and record is None:
        raise UsageError("--record-limit needs --record", hint="name the file to record to")
    try:
        required = layers.mask_of(require)
    except ValueError as error:
        raise UsageError(f"--require: {error}") from error
    try:
        left_out = layers.mask_of(without)
    except ValueError as error:
        raise UsageError(f"--without: {error}") from error
    if left_out & required:
        raise UsageError(f"--require and --without name {', '.join(layers.names(left_out & required))}")
    _refuse_contradictions(sandbox, seccomp, left_out, required)
    if left_out:
        say(f"kvmbox: --without {', '.join(layers.names(left_out))}: this run is contained less than others")
    config = RunConfig(
        guest=path,
        serial=serial_plan(list(serial)),
        debugcon=parse_debugcon(debugcon),
        rtc_base=parse_rtc_base(rtc_base),
        memory_size=memory,
        append=append,
        modules=tuple(parse_module(text) for text in modules),
        mode="real" if flat else mode,
        load_address=load_address,
        serial_overflow=serial_overflow,
        serial_limit=serial_limit,
        timeout=timeout,
        expect=tuple(os.fsencode(text) for text in expect),
        fail_on=tuple(os.fsencode(text) for text in fail_on),
        success_status=success_status,
        uart_pace=uart_pace,
        debug_exit_port=debug_exit,
        no_reboot=no_reboot,
        pin=pin,
        design=_design(sandbox, seccomp, ipc, left_out),
        confine=True,
        tracebacks=debug,
        on_device_crash=_survivable(on_device_crash, sandbox),
        restart_budget=_budget(restart_budget, on_device_crash),
        require=required,
        record=record,
        record_limit=record_limit,
    )
    _refuse_shared_files(config, json_path)
    json_file = open_json(json_path)
    try:
        result = run(config, say=lambda text: say(f"kvmbox: {text}"), timeline=timeline)
    except KvmboxError as error:
        early.raising = False  # this is how it ends, whatever signal comes now
        _write_json(json_path, json_file, {"status": error.exit_status, "reason": str(error)})
        raise
    except KeyboardInterrupt:
        early.raising = False
        _write_json(json_path, json_file, {"status": INTERRUPTED, "reason": "interrupted before the start"})
        raise
    wall = time.monotonic_ns() - timeline.started
    outcome = result.outcome
    facts = {
        "status": outcome.status,
        "reason": outcome.reason,
        "hint": outcome.hint,
        "report": outcome.report,
        "wall_time": wall,
    }
    # First what programs read: stderr may be a pipe that nobody empties. The file may be on a full disk.
    try:
        _write_json(json_path, json_file, facts | result.stats.as_json())
    finally:
        if stats:
            say(format_stats(result.stats, wall))
            say(f"outcome                  {outcome.reason} (status {outcome.status})")
        if outcome.error:
            report(outcome.reason, outcome.hint)
            if outcome.report:
                say(outcome.report)
        elif outcome.hint:
            say(f"hint: {outcome.hint}")
    return outcome.status


def _refuse_contradictions(sandbox: str, seccomp: str | None, left_out: int, required: int) -> None:
    """Layers against the choice of a sandbox, and of what it may call."""
    from kvmbox.sandbox import layers

    without_processes = left_out & ~layers.VMM
    if sandbox in ("none", "thread") and without_processes:
        raise UsageError(
            f"--without {', '.join(layers.names(without_processes))} needs device processes",
            hint=f"with --sandbox {sandbox} there is no such layer to leave out",
        )
    if left_out & layers.SECCOMP and seccomp in ("filter", "strict"):
        raise UsageError(f"--without seccomp contradicts --seccomp {seccomp}")
    if required & layers.SECCOMP and seccomp == "off":
        raise UsageError("--require seccomp contradicts --seccomp off")


def _survivable(on_device_crash: str, sandbox: str) -> str:
    """What to do about a lost process, where there are processes to lose."""
    if on_device_crash != "fail" and sandbox in ("none", "thread"):
        raise UsageError(
            f"--on-device-crash {on_device_crash} needs device processes",
            hint=f"with --sandbox {sandbox} a model that fails takes kvmbox along",
        )
    return on_device_crash


def _budget(budget: int | None, on_device_crash: str) -> int:
    from kvmbox.machine.config import DEFAULT_RESTART_BUDGET

    if budget is not None and on_device_crash != "restart":
        raise UsageError("--restart-budget needs --on-device-crash restart")
    return DEFAULT_RESTART_BUDGET if budget is None else budget


def _design(sandbox: str, seccomp: str | None, ipc: str | None, without: int) -> Design:
    """The three choices, where they make sense together."""
    from kvmbox.processes.pool import Design

    if sandbox == "none" and ipc is not None:
        raise UsageError("--ipc needs a --sandbox", hint="with --sandbox none there is nobody to talk to")
    if sandbox in ("none", "thread") and seccomp not in (None, "off"):
        raise UsageError(
            f"--seccomp {seccomp} needs device processes",
            hint="--sandbox process or per-device; a filter on kvmbox's own threads is another matter",
        )
    return Design(sandbox, seccomp or "filter", ipc or DEFAULT_IPC, without)


def _is_file(name: str) -> bool:
    return os.path.exists(name)


def _write_json(path: str | None, file: TextIO | None, data: dict[str, Any]) -> None:
    if file is not None:
        import json

        write_json(path, file, json.dumps(data, indent=2) + "\n")


def _refuse_shared_files(config: RunConfig, json_path: str | None) -> None:
    read = [("the guest's image", config.guest), *(("a --module", module.path) for module in config.modules)]
    serial = [
        (f"--serial {one.port}=file:", one.path) for one in config.serial.values() if one.kind == "file"
    ]
    if config.debugcon.kind == "file":
        serial.append(("--debugcon file:", config.debugcon.path))
    options = (("--json", json_path), ("--record", config.record))
    refuse_shared([(name, path) for name, path in options if path is not None] + serial, read)
