"""`kvmbox run`: read the options, make one run, and report its outcome."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from kvmbox import early
from kvmbox.boot.choose import WAY_NAMES
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.channel.transports import DEFAULT_IPC, IPC_OPTIONS
from kvmbox.cli.main import INTERRUPTED, note, report, say
from kvmbox.cli.output_files import open_json, write_json
from kvmbox.cli.sections import SectionedCommand
from kvmbox.cli.values import (
    ADDRESS,
    CPU_COUNT,
    FAR_ADDRESS,
    MEMORY_SIZE,
    OPTIONAL_PORT,
    POSITIVE_BYTES,
    SAMPLE_RATE,
    SECONDS,
    is_given,
    is_typed,
)
from kvmbox.errors import KvmboxError, UsageError
from kvmbox.host.distinct import refuse_shared
from kvmbox.host.open_files import allow_enough
from kvmbox.machine import config
from kvmbox.processes.pool import SANDBOX_CHOICES

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

SECTIONS: Final = {
    "Machine": ("memory", "cpus", "cpu", "rtc_base", "testdev"),
    "Image": (
        *("boot", "append", "modules", "initrd", "bios", "firmware_tables", "fw_cfg"),
        *("load_address", "entry", "segments"),
    ),
    "Console": ("serial", "debugcon", "keyboard", "serial_overflow", "serial_limit", "uart_pace", "screen"),
    "End of the run": ("timeout", "expect", "fail_on", "success_status", "debug_exit", "no_reboot"),
    "Work on a kernel": ("watch", "gdb"),
    "Snapshots": ("snapshot_when", "snapshot_stop", "from_file", "rtc"),
    "Isolation": (
        *("sandbox", "seccomp", "ipc", "on_device_crash", "restart_budget", "require", "without", "pin"),
    ),
    "Device faults": ("inject",),
    "Reports": (
        *("symbols", "source", "core", "core_always", "stats", "json_path", "no_exit_samples"),
        *("profile", "profile_rate", "record", "record_limit"),
    ),
}
"""The options by purpose."""

CONFIGURABLE: Final = frozenset(
    (
        *("memory", "cpus", "cpu", "rtc_base", "testdev", "boot", "append", "firmware_tables"),
        *("keyboard", "serial_overflow", "serial_limit", "uart_pace", "screen", *SECTIONS["End of the run"]),
        *("ipc", "on_device_crash", "restart_budget", "require", "pin", "stats"),
    )
)
"""What a configuration file may set: no file, and nothing that takes isolation away."""

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
    sections=SECTIONS,
    examples=EXAMPLES,
    configurable=CONFIGURABLE,
)
@click.argument("guest", required=False, shell_complete=_complete_guest)
@click.option(
    "--memory",
    type=MEMORY_SIZE,
    metavar="SIZE",
    help="Guest memory, such as 64M or 1G.  [default: 128M]",
)
@click.option("--cpus", type=CPU_COUNT, metavar="N", help="The number of CPUs, 1 to 32.  [default: 1]")
@click.option(
    "--cpu",
    metavar="MODEL[,±FEATURE...]",
    help="What CPUID shows. host: what this host runs. max: all that KVM claims. none: the least. "
    "+FEATURE adds a feature, -FEATURE removes one.  [default: host]",
)
@click.option("--append", metavar="TEXT", help="Arguments passed to the guest kernel.")
@click.option(
    "--module",
    "modules",
    multiple=True,
    metavar="FILE[,ARGUMENTS]",
    help="Load FILE as a module for a Multiboot, PVH or ELF kernel. May be repeated.",
)
@click.option(
    "--initrd",
    metavar="FILE",
    help="Load FILE as the initial RAM disk of a Linux kernel. Other kernels get FILE as their first module.",
)
@click.option(
    "--boot",
    type=click.Choice(WAY_NAMES),
    help="How the image boots. auto: by its content, as 'kvmbox inspect' shows. bios: as a boot sector. "
    "real: as a flat 16-bit image.  [default: auto]",
)
@click.option(
    "--bios",
    metavar="FILE|builtin|none",
    help="The firmware. FILE: a ROM image, which needs no GUEST. builtin: kvmbox's own BIOS. none: no BIOS."
    "  [default: builtin for boot sectors and Multiboot kernels, none for others]",
)
@click.option(
    "--load-address",
    type=ADDRESS,
    metavar="ADDRESS",
    help="The load address of a --boot real image.  [default: 0x7c00]",
)
@click.option(
    "--entry",
    type=FAR_ADDRESS,
    metavar="CS:IP",
    help="The entry point of a --boot real image.  [default: the load address]",
)
@click.option(
    "--segments",
    type=click.Choice(config.DATA_SEGMENTS),
    help="The data segments of a --boot real image. zero: 0. cs: equal to the code segment.  [default: zero]",
)
@click.option(
    "--firmware-tables",
    type=click.Choice(config.FIRMWARE_CHOICES),
    help="Whether the guest finds a BIOS data area and ACPI, MP and SMBIOS tables in memory. auto: as its "
    "kind of image expects.  [default: auto]",
)
@click.option(
    "--fw-cfg",
    multiple=True,
    metavar="NAME=FILE",
    help="Let the guest read FILE through fw_cfg under NAME, such as opt/org.example/key. May be repeated.",
)
@click.option(
    "--symbols",
    multiple=True,
    metavar="FILE[@BASE]",
    help="Name addresses in reports by the symbols of FILE, an ELF file or a System.map, moved by BASE. May "
    "be repeated.  [default: the image]",
)
@click.option(
    "--source",
    multiple=True,
    metavar="DIR",
    help="Show lines of the source files in DIR in reports. May be repeated.",
)
@click.option("--testdev", is_flag=True, help="Add the test device of kvm-unit-tests (pc-testdev).")
@click.option(
    "--serial",
    multiple=True,
    metavar="PORT=BACKEND",
    help="Connect PORT (COM1..COM4, MMIO) to BACKEND (stdio, null, pty, file:PATH). May be repeated."
    "  [default: COM1=stdio]",
)
@click.option(
    "--debugcon",
    metavar="BACKEND",
    help="Where the debug console (port 0xe9) prints: stdout, stderr, null, file:PATH or auto. auto: "
    "stdout, but a line that the serial port on stdio also prints is shown only once.  [default: auto]",
)
@click.option(
    "--keyboard",
    type=click.Choice(config.KEYBOARD_INPUTS),
    help="Where the keys of the PS/2 keyboard come from. console: what is typed on stdin presses keys, and "
    "does not go to a serial port.  [default: none]",
)
@click.option(
    "--serial-overflow",
    type=click.Choice(config.SERIAL_OVERFLOWS),
    help="What happens when the host reads output too slowly: the guest waits, or the output is dropped and "
    "counted.  [default: wait]",
)
@click.option(
    "--serial-limit",
    type=POSITIVE_BYTES,
    metavar="BYTES",
    help="End the run with status 12 when one output stream exceeds this size.",
)
@click.option(
    "--uart-pace", is_flag=True, help="UARTs transmit at their programmed baud rate, not immediately."
)
@click.option(
    "--screen",
    type=click.Choice(config.SCREEN_CHOICES),
    help="When the text of the VGA screen (0xb8000) is printed on stdout. end: when the run ends. auto: the "
    "same, if the guest has printed nothing on a serial port or the debug console. live: as it changes, on a "
    "terminal, until a port prints. never: not at all."
    "  [default: auto]",
)
@click.option(
    "--rtc-base",
    metavar="WHEN",
    help="The initial time of the RTC: utc, localtime or an ISO date and time.  [default: utc]",
)
@click.option(
    "--timeout", type=SECONDS, metavar="SECONDS", help="End the run with status 124 after this time."
)
@click.option(
    "--expect",
    multiple=True,
    metavar="TEXT",
    help="End the run with status 0 when the guest has printed TEXT, or shows TEXT on its screen. If "
    "repeated: when all have been seen.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="TEXT",
    help="End the run with status 12 when the guest has printed TEXT, or shows TEXT on its screen. If "
    "repeated: when any has been seen.",
)
@click.option(
    "--success-status",
    type=click.IntRange(1, 255),
    metavar="N",
    help="Turn the odd debug-exit status N into 0 (success), and every other end of the guest into 12.",
)
@click.option(
    "--debug-exit",
    type=OPTIONAL_PORT,
    metavar="PORT",
    help="The I/O port of debug-exit, or none.  [default: 0xf4]",
)
@click.option(
    "--sandbox",
    type=click.Choice(SANDBOX_CHOICES),
    help="Where device models run. none: in the vCPU thread. thread: in one thread per device type. "
    "process: in one process per device type. per-device: in one process per device.  [default: process]",
)
@click.option(
    "--seccomp",
    type=click.Choice(config.SECCOMP_CHOICES),
    help="The system calls of device processes. filter: those on a list. strict: only read, write and exit. "
    "off: all.  [default: filter]",
)
@click.option(
    "--ipc",
    type=click.Choice(IPC_OPTIONS),
    help="How the VMM sends requests to device processes. auto: shm where a CPU is left to spin on, and pipe "
    f"elsewhere.  [default: {DEFAULT_IPC}]",
)
@click.option(
    "--no-reboot", is_flag=True, help="End the run with status 0 when the guest resets, instead of rebooting."
)
@click.option(
    "--on-device-crash",
    type=click.Choice(config.CRASH_ANSWERS),
    help="What happens when a device process dies, hangs or breaks the protocol. fail: the run ends with "
    "status 8. restart: the process is restarted, invisibly to the guest. all-ones: the ports of the device "
    "read as ones.  [default: fail]",
)
@click.option(
    "--restart-budget",
    type=click.IntRange(min=1),
    metavar="N",
    help="The maximum number of restarts in one run.  [default: 16]",
)
@click.option(
    "--require",
    multiple=True,
    metavar="LAYER",
    help="Fail with status 4 if this host does not have the sandbox layer (see 'kvmbox doctor'). May be "
    "repeated.",
)
@click.option(
    "--without",
    multiple=True,
    metavar="LAYER",
    help="Do not use this sandbox layer (see 'kvmbox doctor'). For experiments. May be repeated.",
)
@click.option(
    "--pin",
    metavar="auto|none|CPU",
    help="The host CPU on which the first vCPU and the device processes run.  [default: auto]",
)
@click.option(
    "--profile",
    metavar="FILE",
    help="Sample where the CPUs are, and write the stacks to FILE: for speedscope if its name ends in .json, "
    "else collapsed stacks. 'kvmbox profile FILE' shows the hottest functions.",
)
@click.option(
    "--profile-rate",
    type=SAMPLE_RATE,
    metavar="HZ",
    help="The samples of --profile per second, 1 to 1000.  [default: 99]",
)
@click.option("--record", metavar="FILE", help="Record all requests to devices in FILE, for 'kvmbox replay'.")
@click.option(
    "--record-limit",
    type=POSITIVE_BYTES,
    metavar="SIZE",
    help="Stop recording before FILE exceeds this size. The run continues.",
)
@click.option(
    "--snapshot-when",
    multiple=True,
    metavar="WHEN=FILE",
    help="Write the whole machine to FILE when the guest has printed the text WHEN, has written to a port "
    "(port:0x5f0), or has run for a time (time:SECONDS). The run continues. May be repeated.",
)
@click.option(
    "--snapshot-stop", is_flag=True, help="End the run with status 0 when all snapshots are written."
)
@click.option("--from", "from_file", metavar="FILE", help="Start from a snapshot instead of a GUEST.")
@click.option(
    "--rtc",
    type=click.Choice(config.RTC_POLICIES),
    help="The clock of a machine --from a snapshot. stand-still: it continues from the snapshot. catch-up: "
    "it shows the time that has passed since.  [default: stand-still]",
)
@click.option(
    "--core",
    metavar="FILE",
    help="Write memory and registers of the guest to FILE, a core file for gdb, when the guest has crashed, "
    "does not end in time, or loses a device process (statuses 6, 8, 10, 124).",
)
@click.option("--core-always", is_flag=True, help="Write the file of --core at any end of the run.")
@click.option(
    "--inject",
    multiple=True,
    metavar="DEVICE:FAULT=VALUE,...",
    shell_complete=_complete_fault,
    help="Let a device misbehave, to test a driver: 'uart:drop-irq=0.01,seed=7' loses one interrupt in a "
    "hundred, and the same ones in each run. help: list devices and faults. May be repeated.",
)
@click.option("--stats", is_flag=True, help="Print statistics on stderr when the run ends.")
@click.option(
    "--no-exit-samples",
    is_flag=True,
    help="For --stats and --json: do not sample which instructions make the exits.",
)
@click.option(
    "--json", "json_path", metavar="FILE", help="Write the outcome and the statistics of the run to FILE."
)
@click.option(
    "--watch",
    is_flag=True,
    help="Boot again whenever the image, or another file that the guest gets, changes. Ctrl-A X ends that.",
)
@click.option(
    "--gdb",
    metavar="ENDPOINT[,nowait]",
    help="Serve GDB's remote protocol at - (gdb's own pipe), unix:PATH, or :PORT of this host. The guest "
    "stands at its entry until a debugger lets it go on; with ',nowait' it runs.",
)
@click.option("--debug", is_flag=True, help="Print a traceback when kvmbox fails.")
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
