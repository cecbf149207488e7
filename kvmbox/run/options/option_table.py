"""The options of a run: one table, from which everything that knows options derives.

A row is an option of `kvmbox run`, and unless it is marked COMMAND a parameter of `kvmbox.Machine` with the
same name: `--serial-limit` is `serial_limit`. Sections and rows have the order of the help. The rows decide
the command line (`cli.click_options`; `cli.run.quick_parser` reads it without click), the parameters of
`Machine` and their types (`_generated`), what a configuration file may set, the keys of suites, and what a
snapshot decides. A new option is a row, and the code that obeys it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.run.options import choices, values
from kvmbox.run.options.definition import (
    COMMAND,
    FILE,
    FLAG,
    IMAGE,
    READ,
    REPEATED,
    SUITE,
    WRITTEN,
    Option,
    Section,
)

# The formatter would give each cell a line of its own.
# fmt: off
SECTIONS: Final = (
    Section("Machine", (
        Option("memory", "Guest memory, such as 64M or 1G.", default=layout.DEFAULT_MEMORY,
               shown=f"{layout.DEFAULT_MEMORY // layout.MIB}M", metavar="SIZE", read=values.memory_size,
               type="int | str", marks=IMAGE | FILE | SUITE),
        Option("cpus", "The number of CPUs, 1 to 32.", default=1, metavar="N", read=values.cpu_count,
               type="int", marks=IMAGE | FILE | SUITE),
        Option("cpu",
               "What CPUID shows. host: what this host runs. max: all that KVM claims. none: the least. "
               "+FEATURE adds a feature, -FEATURE removes one.", default=choices.DEFAULT_CPU,
               metavar="MODEL[,±FEATURE...]", marks=IMAGE | FILE | SUITE),
        Option("rtc_base", "The initial time of the RTC: utc, localtime or an ISO date and time.",
               default=choices.DEFAULT_RTC_BASE, metavar="WHEN", parse="kvmbox.run.options.values:rtc_base",
               type="int | str", marks=IMAGE | FILE | SUITE),
        Option("pci",
               "A PCI bus. on: there is one, and virtio devices are on it. off: there is none. auto: "
               "there is one if a device needs it, as an e1000 does.",
               default=choices.DEFAULT_PCI, choices=choices.PCI_CHOICES,
               marks=IMAGE | FILE | SUITE, part="pci_bus"),
        Option("testdev", "Add the test device of kvm-unit-tests (pc-testdev).", kind=FLAG,
               marks=IMAGE | FILE | SUITE),
    )),
    Section("Image", (
        Option("boot",
               "How the image boots. auto: by its content, as 'kvmbox inspect' shows. iso: as a CD. "
               "bios: as a boot sector. real: as a flat 16-bit image.", default=choices.DEFAULT_BOOT,
               choices=choices.WAY_NAMES, type="str", marks=IMAGE | FILE | SUITE),
        Option("append", "Arguments passed to the guest kernel.", default="", metavar="TEXT",
               marks=IMAGE | FILE | SUITE),
        Option("modules", "Load FILE as a module for a Multiboot, PVH or ELF kernel. May be repeated.",
               flag="--module", kind=REPEATED, metavar="FILE[,ARGUMENTS]",
               parse="kvmbox.run.options.choices:module_spec",
               type="Several[str | os.PathLike[str] | ModuleSpec]",
               marks=IMAGE | SUITE, file=READ),
        Option("initrd",
               "Load FILE as the initial RAM disk of a Linux kernel. Other kernels get FILE as their first "
               "module.", metavar="FILE", marks=IMAGE | SUITE, file=READ),
        Option("bios",
               "The firmware. FILE: a ROM image, which needs no GUEST. builtin: kvmbox's own BIOS. none: "
               "no BIOS.", shown="builtin for boot sectors and Multiboot kernels, none for others",
               metavar="FILE|builtin|none", marks=IMAGE | SUITE, file=READ),
        Option("firmware_tables",
               "Whether the guest finds a BIOS data area and ACPI, MP and SMBIOS tables in memory. auto: "
               "as its kind of image expects.", default=choices.DEFAULT_FIRMWARE,
               choices=choices.FIRMWARE_CHOICES, marks=IMAGE | FILE | SUITE),
        Option("fw_cfg",
               "Let the guest read FILE through fw_cfg under NAME, such as opt/org.example/key. May be "
               "repeated.", kind=REPEATED, metavar="NAME=FILE",
               parse="kvmbox.run.options.choices:firmware_file",
               type="Several[str | FirmwareFile]", marks=IMAGE | SUITE, file=READ),
        Option("load_address", "The load address of a --boot real image.", shown="0x7c00",
               metavar="ADDRESS", read=values.address, type="int | str | None", marks=IMAGE | SUITE),
        Option("entry", "The entry point of a --boot real image.", shown="the load address",
               metavar="CS:IP", read=values.far_address, type="tuple[int, int] | str | None",
               marks=IMAGE | SUITE),
        Option("segments",
               "The data segments of a --boot real image. zero: 0. cs: equal to the code segment.",
               shown="zero", choices=choices.DATA_SEGMENTS, marks=IMAGE | SUITE),
    )),
    Section("Disks", (
        Option("disks",
               "Give the guest the image FILE as a disk. overlay: what the guest writes is lost at the end. "
               "write: it goes to FILE. readonly: it is refused. May be repeated.", flag="--disk",
               kind=REPEATED, metavar="FILE[,overlay|write|readonly][,format=FORMAT][,on=ide|virtio]"
               "[,serial=TEXT][,backing=FILE]", parse="kvmbox.parts.disk.disk_option:disk",
               type="Several[str | os.PathLike[str] | DiskRequest]", marks=IMAGE | SUITE, file=READ,
               part="disk"),
        Option("cdroms", "Give the guest the ISO image FILE as a CD. May be repeated.", flag="--cdrom",
               kind=REPEATED, metavar="FILE", parse="kvmbox.parts.disk.disk_option:cd",
               type="Several[str | os.PathLike[str] | DiskRequest]", marks=IMAGE | SUITE, file=READ,
               part="disk"),
        Option("disk_overlay", "How much a guest may write to each disk that is not written to its file.",
               default=choices.DEFAULT_DISK_OVERLAY,
               shown=f"{choices.DEFAULT_DISK_OVERLAY // layout.MIB}M", metavar="SIZE",
               read=values.byte_count, type="int | str", marks=IMAGE | FILE | SUITE, part="disk"),
    )),
    Section("Network, and other virtio devices", (
        Option("rng", "Give the guest a virtio entropy device.", kind=FLAG, marks=IMAGE | FILE | SUITE,
               part="virtio"),
        Option("virtio_console",
               "Give the guest a virtio console, whose output goes to BACKEND: stdout, null, file:PATH, or "
               "pty, which also has its input.", metavar="BACKEND",
               parse="kvmbox.host.console.virtio_backend:parse_virtio_console", type="str | Capture | None",
               marks=IMAGE | SUITE, part="virtio"),
        Option("nets",
               "Give the guest a network interface. Its wire ends at none, loop, user (the host's network), "
               "switch:NAME, socket:unix:PATH[,listen], tap:NAME, fd:N or pcap:FILE. May be repeated.",
               metavar="BACKEND[,on=virtio|e1000][,mac=ADDRESS][,pcap=FILE][,forward=tcp|udp:[HOST:]GUEST]",
               parse="kvmbox.parts.net.net_option:net", kind=REPEATED, marks=IMAGE | SUITE, flag="--net",
               part="net"),
    )),
    Section("Console", (
        Option("serial",
               "Connect PORT (COM1..COM4, MMIO) to BACKEND (stdio, null, pty, file:PATH). May be repeated.",
               shown="COM1=stdio", kind=REPEATED, metavar="PORT=BACKEND", type="Backends"),
        Option("debugcon",
               "Where the debug console (port 0xe9) prints: stdout, stderr, null, file:PATH or auto. auto: "
               "stdout, but a line that the serial port on stdio also prints is shown only once.",
               default="auto", metavar="BACKEND", type="str | Capture"),
        Option("keyboard",
               "Where the keys of the PS/2 keyboard come from. console: what is typed on stdin presses "
               "keys, and does not go to a serial port.", default=choices.DEFAULT_KEYBOARD,
               choices=choices.KEYBOARD_INPUTS, marks=FILE | SUITE),
        Option("serial_overflow",
               "What happens when the host reads output too slowly: the guest waits, or the output is "
               "dropped and counted.", default=choices.DEFAULT_SERIAL_OVERFLOW,
               choices=choices.SERIAL_OVERFLOWS, marks=FILE),
        Option("serial_limit", "End the run with status 12 when one output stream exceeds this size.",
               metavar="BYTES", read=values.byte_count, type="int | str | None", marks=FILE | SUITE),
        Option("uart_pace", "UARTs transmit at their programmed baud rate, not immediately.", kind=FLAG,
               marks=IMAGE | FILE | SUITE),
        Option("screen",
               "When the text of the VGA screen (0xb8000) is printed on stdout. end: when the run ends. "
               "auto: the same, if the guest has printed nothing on a serial port or the debug console. "
               "live: as it changes, on a terminal, below what ports print. as: how graphics are drawn, in "
               "place of what the environment says that the terminal can. never: not at all.",
               default=choices.DEFAULT_SCREEN, choices=choices.SCREEN_CHOICES, marks=FILE, part="screen"),
        Option("picture", "Write what a monitor shows at the end of the run to FILE, as PNG.", metavar="FILE",
               file=WRITTEN, part="screen"),
    )),
    Section("End of the run", (
        Option("timeout", "End the run with status 124 after this time.", metavar="SECONDS",
               read=values.seconds, type="float | None", marks=FILE),
        Option("expect",
               "End the run with status 0 when the guest has printed TEXT, or shows TEXT on its screen. If "
               "repeated: when all have been seen. With --success-status, only the end of the guest ends "
               "the run.", kind=REPEATED, metavar="TEXT", parse="kvmbox.run.options.choices:expected_text",
               type="Several[str | bytes]", marks=FILE),
        Option("expect_picture", "Expect graphics, too: the image FILE, or sha256:HASH of the pixels. "
               "within: by how much levels of colour may differ on average, from 0 to 1. region: only W x H "
               "pixels from column X and row Y are compared.", metavar="FILE[,within=N][,region=X:Y:WxH]",
               parse="kvmbox.parts.screen.picture_conditions:parse", marks=SUITE, file=READ, part="screen"),
        Option("fail_on",
               "End the run with status 12 when the guest has printed TEXT, or shows TEXT on its screen. "
               "If repeated: when any has been seen.", kind=REPEATED, metavar="TEXT",
               parse="kvmbox.run.options.choices:expected_text", type="Several[str | bytes]", marks=FILE),
        Option("success_status",
               "Turn the odd debug-exit status N into 0 (success), and every other end of the guest into "
               "12. All texts of --expect must have been printed before.", metavar="N", bounds=(1, 255),
               type="int | None", marks=FILE),
        Option("debug_exit", "The I/O port of debug-exit, or none.", default=layout.DEBUG_EXIT_PORT,
               shown=f"{layout.DEBUG_EXIT_PORT:#x}", metavar="PORT", read=values.optional_port,
               type="int | str | None", marks=IMAGE | FILE | SUITE),
        Option("no_reboot", "End the run with status 0 when the guest resets, instead of rebooting.",
               kind=FLAG, marks=FILE | SUITE),
    )),
    Section("Work on a kernel", (
        Option("watch",
               "Boot again whenever the image, or another file that the guest gets, changes. Ctrl-A X ends "
               "that.", kind=FLAG, marks=COMMAND),
        Option("gdb",
               "Serve GDB's remote protocol at - (gdb's own pipe), unix:PATH, or :PORT of this host. The "
               "guest stands at its entry until a debugger lets it go on; with ',nowait' it runs.",
               metavar="ENDPOINT[,nowait]", parse="kvmbox.host.sockets.endpoint:parse", part="gdb"),
        Option("vnc",
               "Show the guest's screen to a VNC client at unix:PATH, or :PORT of this host. Its keys and "
               "its pointer are those of the guest.",
               metavar="ENDPOINT", parse="kvmbox.host.sockets.endpoint:parse_vnc", part="vnc"),
    )),
    Section("Snapshots", (
        Option("snapshot_when",
               "Write the whole machine to FILE when the guest has printed or shows the text WHEN, has "
               "written to a port (port:0x5f0), or has run for a time (time:SECONDS). The run continues. "
               "May be repeated.", kind=REPEATED, metavar="WHEN=FILE",
               parse="kvmbox.parts.snapshot.snapshots:condition", type="Several[str | SnapshotCondition]",
               file=WRITTEN, part="snapshot"),
        Option("snapshot_stop", "End the run with status 0 when all snapshots are written.", kind=FLAG,
               needs=("snapshot_when", "say when the snapshot is taken"), part="snapshot"),
        Option("from_file", "Start from a snapshot instead of a GUEST.", flag="--from", metavar="FILE",
               marks=COMMAND, file=READ),
        Option("rtc",
               "The clock of a machine --from a snapshot. stand-still: it continues from the snapshot. "
               "catch-up: it shows the time that has passed since.", default=choices.DEFAULT_RTC,
               choices=choices.RTC_POLICIES),
    )),
    Section("Isolation", (
        Option("sandbox",
               "Where device models run. none: in the vCPU thread. thread: in one thread per device type. "
               "process: in one process per device type. per-device: in one process per device.",
               default=choices.DEFAULT_SANDBOX, choices=choices.SANDBOX_CHOICES),
        Option("seccomp",
               "The system calls of device processes. filter: those on a list. strict: only read, write "
               "and exit. off: all.", shown=choices.DEFAULT_SECCOMP, choices=choices.SECCOMP_CHOICES),
        Option("ipc",
               "How the VMM sends requests to device processes. auto: shm where a CPU is left to spin on, "
               "and pipe elsewhere.", shown=choices.DEFAULT_IPC, choices=choices.IPC_OPTIONS,
               type="str | None", marks=FILE),
        Option("on_device_crash",
               "What happens when a device process dies, hangs or breaks the protocol. fail: the run ends "
               "with status 8. restart: the process is restarted, invisibly to the guest. all-ones: the "
               "ports of the device read as ones.", default=choices.DEFAULT_ON_DEVICE_CRASH,
               choices=choices.CRASH_ANSWERS, marks=FILE | SUITE, part="restart"),
        Option("restart_budget", "The maximum number of restarts in one run.",
               shown=str(choices.DEFAULT_RESTART_BUDGET), metavar="N", bounds=(1, None), type="int | None",
               marks=FILE | SUITE, part="restart"),
        Option("require",
               "Fail with status 4 if this host does not have the sandbox layer (see 'kvmbox doctor'). May "
               "be repeated.", kind=REPEATED, metavar="LAYER", marks=FILE | SUITE),
        Option("without",
               "Do not use this sandbox layer (see 'kvmbox doctor'). For experiments. May be repeated.",
               kind=REPEATED, metavar="LAYER"),
        Option("pin", "The host CPU on which the first vCPU and the device processes run.",
               default=choices.DEFAULT_PIN, metavar="auto|none|CPU", type="int | str", marks=FILE),
    )),
    Section("Device faults", (
        Option("inject",
               "Let a device misbehave, to test a driver: 'uart:drop-irq=0.01,seed=7' loses one interrupt "
               "in a hundred, and the same ones in each run. help: list devices and faults. May be "
               "repeated.", kind=REPEATED, metavar="DEVICE:FAULT=VALUE,...", type="Several[str]",
               marks=SUITE, parse="kvmbox.parts.inject.spec:parse", part="inject"),
    )),
    Section("Reports", (
        Option("symbols",
               "Name addresses in reports by the symbols of FILE, an ELF file or a System.map, moved by "
               "BASE. May be repeated.", shown="the image", kind=REPEATED, metavar="FILE[@BASE]",
               parse="kvmbox.run.options.choices:symbol_spec",
               type="Several[str | os.PathLike[str] | SymbolSpec]",
               file=READ),
        Option("report",
               "How much is printed of a crash: cause, place and callers, or registers and stack as well.",
               default="short", choices=("short", "full"), marks=COMMAND | FILE),
        Option("source", "Show lines of the source files in DIR in reports. May be repeated.",
               kind=REPEATED, metavar="DIR", type="Several[str | os.PathLike[str]]", part="crash_report"),
        Option("core",
               "Write memory and registers of the guest to FILE, a core file for gdb, when the guest has "
               "crashed, does not end in time, or loses a device process (statuses 6, 8, 10, 124).",
               metavar="FILE", file=WRITTEN, part="core_file"),
        Option("core_always", "Write the file of --core at any end of the run.", kind=FLAG,
               needs=("core", "name the file of the core"), part="core_file"),
        Option("stats", "Print statistics on stderr when the run ends.", kind=FLAG, marks=COMMAND | FILE),
        Option("json_path", "Write the outcome and the statistics of the run to FILE.", flag="--json",
               metavar="FILE", marks=COMMAND, file=WRITTEN),
        Option("html",
               "Write a page for people to FILE, in HTML: how the run ended, console, screen, crash report.",
               metavar="FILE", marks=COMMAND, file=WRITTEN),
        Option("no_exit_samples",
               "For --stats and --json: do not sample which instructions make the exits.", kind=FLAG,
               marks=COMMAND),
        Option("profile",
               "Sample where the CPUs are, and write the stacks to FILE: for speedscope if its name ends "
               "in .json, else collapsed stacks. 'kvmbox profile FILE' shows the hottest functions.",
               metavar="FILE", file=WRITTEN, part="profile"),
        Option("profile_rate", "The samples of --profile per second, 1 to 1000.",
               shown=str(choices.DEFAULT_PROFILE_RATE), metavar="HZ", read=values.sample_rate,
               type="int | str | None", needs=("profile", "name the file to write the profile to"),
               part="profile"),
        Option("record", "Record all requests to devices in FILE, for 'kvmbox replay'.", metavar="FILE",
               file=WRITTEN, part="record"),
        Option("record_limit", "Stop recording before FILE exceeds this size. The run continues.",
               metavar="SIZE", read=values.byte_count, type="int | str | None",
               needs=("record", "name the file to record to"), part="record"),
    )),
    Section("Other options", (
        Option("debug", "Print a traceback when kvmbox fails.", kind=FLAG, marks=COMMAND),
    )),
)
# fmt: on

OF_THE_LIBRARY: Final = (
    Option("console", flag="console", default="capture", choices=("capture", "stdio")),
    Option("sample_exits", kind=FLAG, part="exit_samples"),
    Option("transcript", kind=FLAG, part="transcript"),
    Option("kvm_path", default=choices.DEFAULT_KVM_PATH),
    Option("devices", kind=REPEATED, flag="devices", type="Several[DeviceSpec]"),
    Option("resources", type="Mapping[str, Store] | None"),
    Option("say", type="Callable[[str], None] | None"),
    Option("start", type="SavedMachine | None", marks=IMAGE),
)
"""Parameters of `Machine` that no option of `kvmbox run` has."""

OPTIONS: Final = {option.name: option for section in SECTIONS for option in section.options}
"""The options of `kvmbox run` by name, in the order of the help."""

PARAMETERS: Final = {
    option.name: option for option in (*OPTIONS.values(), *OF_THE_LIBRARY) if not option.marks & COMMAND
}
"""The parameters of `Machine` by name."""


def names(mark: int) -> tuple[str, ...]:
    """The options of `kvmbox run` that have the mark IMAGE, FILE or SUITE."""
    return tuple(option.name for option in OPTIONS.values() if option.marks & mark)


def taken(given: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of `Machine`: those that are `given` as a run keeps them, and defaults.

    Raises UsageError for a value that an option cannot have, and TypeError for a name that is none.
    """
    for name in given:
        if name not in PARAMETERS:
            raise TypeError(f"Machine() got an unexpected keyword argument '{name}'{_did_you_mean(name)}")
    for name in given:
        _check_need(PARAMETERS[name], given)
    given = {"rtc_base": PARAMETERS["rtc_base"].default, **given}  # the time of each run
    return _defaults() | {name: PARAMETERS[name].take(value) for name, value in given.items()}


@cache
def _defaults() -> dict[str, Any]:
    return {name: option.take(option.parameter_default) for name, option in PARAMETERS.items()}


def _check_need(option: Option, given: Mapping[str, Any]) -> None:
    if option.needs is None or given[option.name] == option.parameter_default:
        return
    needed, advice = PARAMETERS[option.needs[0]], option.needs[1]
    if given.get(needed.name, needed.parameter_default) == needed.parameter_default:
        raise UsageError(f"{option.spelling} needs {needed.spelling}", hint=advice)


def _did_you_mean(name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, PARAMETERS, 1)
    return f". Did you mean '{close[0]}'?" if close else ""
