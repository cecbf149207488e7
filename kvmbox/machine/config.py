"""The options of a run, with their choices and defaults, and the checks that refuse contradictions.

`Machine` and `kvmbox run` have the same options with the same names: `--serial-limit` is `serial_limit`. Both
take choices and defaults from here, and check values with the functions below. A UsageError names the option
as the command line spells it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from kvmbox import layout
from kvmbox.board import DeviceSpec
from kvmbox.boot.choose import AUTO, WAY_NAMES
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.channel.transports import DEFAULT_IPC, IPC_OPTIONS
from kvmbox.errors import UsageError
from kvmbox.host.capture import Capture
from kvmbox.host.serial import KeyboardSpec, SerialSpec
from kvmbox.lean import Value
from kvmbox.machine import values
from kvmbox.machine.snapshots import SnapshotCondition
from kvmbox.processes.pool import PROCESS, SANDBOX_CHOICES, SECCOMP_MODES, Design, Sandbox, Seccomp
from kvmbox.sandbox import layers

DataSegments = Literal["zero", "cs"]
FirmwareChoice = Literal["auto", "none"]
SerialOverflow = Literal["wait", "drop"]
KeyboardInput = Literal["none", "console"]
RtcPolicy = Literal["stand-still", "catch-up"]
OnDeviceCrash = Literal["fail", "restart", "all-ones"]
ScreenChoice = Literal["auto", "end", "live", "never"]

DATA_SEGMENTS: Final[tuple[DataSegments, ...]] = get_args(DataSegments)
FIRMWARE_CHOICES: Final[tuple[FirmwareChoice, ...]] = get_args(FirmwareChoice)
RTC_POLICIES: Final[tuple[RtcPolicy, ...]] = get_args(RtcPolicy)
SERIAL_OVERFLOWS: Final[tuple[SerialOverflow, ...]] = get_args(SerialOverflow)
SCREEN_CHOICES: Final[tuple[ScreenChoice, ...]] = get_args(ScreenChoice)
KEYBOARD_INPUTS: Final[tuple[KeyboardInput, ...]] = get_args(KeyboardInput)
CRASH_ANSWERS: Final[tuple[OnDeviceCrash, ...]] = get_args(OnDeviceCrash)
SECCOMP_CHOICES: Final = tuple(SECCOMP_MODES)

DEFAULT_MEMORY: Final = layout.DEFAULT_MEMORY
DEFAULT_BOOT: Final = AUTO
DEFAULT_CPU: Final = "host"
DEFAULT_FIRMWARE: Final = FIRMWARE_CHOICES[0]
DEFAULT_SERIAL_OVERFLOW: Final = SERIAL_OVERFLOWS[0]
DEFAULT_SCREEN: Final = SCREEN_CHOICES[0]
DEFAULT_KEYBOARD: Final = KEYBOARD_INPUTS[0]
DEFAULT_RTC: Final = RTC_POLICIES[0]
DEFAULT_ON_DEVICE_CRASH: Final = CRASH_ANSWERS[0]
DEFAULT_SANDBOX: Final = PROCESS
DEFAULT_SECCOMP: Final = SECCOMP_CHOICES[0]
DEFAULT_DEBUG_EXIT: Final = layout.DEBUG_EXIT_PORT
DEFAULT_RTC_BASE: Final = "utc"
DEFAULT_PIN: Final = "auto"
DEFAULT_KVM_PATH: Final = "/dev/kvm"
MOST_SNAPSHOTS: Final = 64
"""How many snapshots a run may plan."""

NO_FAULTS_IN_SNAPSHOTS: Final = "a snapshot has no room for how far the faults have come"

DEFAULT_RESTART_BUDGET: Final = 16
"""How many restarts a run may have before a device that keeps dying ends it."""

DEFAULT_PROFILE_RATE: Final = 99
"""How many samples --profile takes a second: not in step with a guest's timer of 100 or 1000 Hz."""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.gdb.endpoint import Endpoint
    from kvmbox.host.transfers import Store
    from kvmbox.inject.spec import Spec
    from kvmbox.snapshot.file import SnapshotFile

_NO_RESOURCES: Final[Mapping[str, Store]] = {}


class ModuleSpec(Value):
    """A Multiboot module: the file to load and the words behind its name."""

    path: str
    arguments: str = ""


class FirmwareFile(Value):
    """A file of the host that the guest reads through fw_cfg, under `name`."""

    name: str
    path: str


class SymbolSpec(Value):
    """A file with symbols of the guest, and what to add to the addresses in the file."""

    path: str
    base: int = 0


class RunConfig(Value):
    """One run, checked. Sizes are bytes, `timeout` is seconds.

    `boot` is a way to boot; `bios` is None where the image decides whether there is a BIOS, else "builtin",
    "none" or a file. `entry` is (CS, IP).
    `rtc_base` is the wall clock at guest time 0, in seconds since 1970. `require` is the mask of sandbox
    layers (`sandbox.layers`) that must not be missing. `devices` are put on the board beside those of a PC;
    `resources` are what their `Resource` grants name. `start` is the snapshot that the machine starts from,
    which decides many of the others. `inject` are the faults of devices. `gdb` is where a debugger finds
    the machine. `console` is where the text of the screen goes, None for stdout.
    """

    guest: str
    serial: dict[str, SerialSpec]
    debugcon: SerialSpec
    rtc_base: int
    memory_size: int
    cpus: int
    cpu: str
    append: str
    modules: tuple[ModuleSpec, ...]
    initrd: str | None
    boot: str
    bios: str | None
    load_address: int | None
    entry: tuple[int, int] | None
    segments: DataSegments | None
    firmware_tables: FirmwareChoice
    fw_cfg: tuple[FirmwareFile, ...]
    symbols: tuple[SymbolSpec, ...]
    testdev: bool
    serial_overflow: SerialOverflow
    serial_limit: int | None
    timeout: float | None
    expect: tuple[bytes, ...]
    fail_on: tuple[bytes, ...]
    success_status: int | None
    uart_pace: bool
    debug_exit_port: int | None
    no_reboot: bool
    pin: str
    design: Design
    on_device_crash: OnDeviceCrash
    restart_budget: int
    require: int
    record: str | None
    record_limit: int | None
    kvm_path: str
    devices: tuple[DeviceSpec, ...]
    resources: Mapping[str, Store]
    snapshot_when: tuple[SnapshotCondition, ...] = ()
    snapshot_stop: bool = False
    start: SnapshotFile | None = None
    rtc: RtcPolicy = DEFAULT_RTC
    source: tuple[str, ...] = ()
    keyboard: KeyboardSpec | None = None
    core: str | None = None
    core_always: bool = False
    profile: str | None = None
    profile_rate: int | None = None
    inject: tuple[Spec, ...] = ()
    gdb: Endpoint | None = None
    screen: ScreenChoice = DEFAULT_SCREEN
    console: Capture | None = None
    sample_exits: bool = False

    @property
    def bios_file(self) -> str | None:
        """The firmware image of --bios FILE, or None."""
        return None if self.bios in (BUILTIN_BIOS, NO_BIOS) else self.bios

    @property
    def files_written(self) -> list[tuple[str, str]]:
        """What for, and the path, of each file that the run writes."""
        found = [("--record", self.record)] if self.record is not None else []
        found += [("--profile", self.profile)] if self.profile is not None else []
        found += [("--snapshot-when", one.path) for one in self.snapshot_when]
        found += [("--core", self.core)] if self.core is not None else []
        found += [(f"--serial {one.port}=file:", one.path) for one in self.serial.values() if one.path]
        if self.debugcon.path:
            found.append(("--debugcon file:", self.debugcon.path))
        return found

    @property
    def files_read(self) -> list[tuple[str, str]]:
        """The same of the files that it reads."""
        if self.start is not None:
            return [("--from", self.start.path)]
        found = [("the guest's image", self.guest), *(("a --module", module.path) for module in self.modules)]
        if self.initrd is not None:
            found.append(("--initrd", self.initrd))
        if self.bios_file is not None:
            found.append(("--bios", self.bios_file))
        found += [("--symbols", spec.path) for spec in self.symbols]
        return found + [(f"--fw-cfg {file.name}", file.path) for file in self.fw_cfg]


def parse_module(text: str) -> ModuleSpec:
    """'FILE' or 'FILE,ARGUMENTS'. Raises UsageError."""
    path, _, arguments = text.partition(",")
    if not path:
        raise UsageError(f"--module '{text}' names no file")
    return ModuleSpec(path, arguments)


def parse_symbols(text: str) -> SymbolSpec:
    """'FILE' or 'FILE@BASE'. Raises UsageError."""
    path, at, base = text.rpartition("@")
    if not at:
        path, base = text, "0"
    if not path:
        raise UsageError(f"--symbols '{text}' names no file")
    try:
        return SymbolSpec(path, values.address(base))
    except ValueError as error:
        if os.path.exists(text):  # the name of a file may have an @
            return SymbolSpec(text)
        raise UsageError(f"--symbols '{text}': {error}", hint="for example kernel.elf@0x100000") from error


def parse_fw_cfg(text: str) -> FirmwareFile:
    """'NAME=FILE'. Raises UsageError."""
    name, separator, path = text.partition("=")
    if not name or not separator or not path:
        raise UsageError(
            f"--fw-cfg '{text}' is not NAME=FILE", hint="for example opt/org.example/key=key.txt"
        )
    return FirmwareFile(name, path)


def injected(wanted: str | Sequence[str]) -> tuple[Spec, ...]:
    """The faults of --inject: one, or several. Raises UsageError."""
    if not wanted:
        return ()
    from kvmbox.inject.spec import parse_all

    return parse_all(wanted)


def boot_way(boot: str, *, flat: bool) -> str:
    """The way to boot: a `flat` bundled image only boots one way. Raises UsageError."""
    _refuse_other("--boot", boot, WAY_NAMES)
    return "real" if flat and boot == AUTO else boot


def gdb_endpoint(text: str | None) -> Endpoint | None:
    """Where --gdb serves its client. Raises UsageError."""
    if text is None:
        return None
    from kvmbox.gdb.endpoint import parse

    return parse(text)


def texts(wanted: str | bytes | Sequence[str | bytes]) -> tuple[bytes, ...]:
    """The texts of --expect or --fail-on as bytes: one, or several. Raises UsageError."""
    several = (wanted,) if isinstance(wanted, str | bytes) else wanted
    found = tuple(os.fsencode(text) for text in several)
    if not all(found):
        raise UsageError("--expect and --fail-on want a text that is not empty")
    return found


def types_on_keyboard(keyboard: str) -> bool:
    """Whether the console's input goes to the keyboard. Raises UsageError."""
    _refuse_other("--keyboard", keyboard, KEYBOARD_INPUTS)
    return keyboard == "console"


def check_cpu(model: str) -> None:
    """Refuse what `--cpu` cannot mean. Raises UsageError."""
    if model not in ("host", "max"):  # these need no table of features
        from kvmbox.cpuid.model import parse_model

        parse_model(model)


def layer_mask(option: str, names: Sequence[str]) -> int:
    """The sandbox layers that `option` names, as a mask. Raises UsageError."""
    try:
        return layers.mask_of(names)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


def design_of(
    sandbox: Sandbox, seccomp: Seccomp | None, ipc: str | None, *, without: int, require: int
) -> Design:
    """The three choices, None where none was made, and the layers that are left out and required.

    UsageError where they make no sense together.
    """
    _refuse_other("--sandbox", sandbox, SANDBOX_CHOICES)
    _refuse_other("--seccomp", seccomp, SECCOMP_CHOICES)
    _refuse_other("--ipc", ipc, IPC_OPTIONS)
    design = Design(sandbox, seccomp or DEFAULT_SECCOMP, ipc or DEFAULT_IPC, without)
    if without & require:
        raise UsageError(f"--require and --without name {', '.join(layers.names(without & require))}")
    of_processes = without & ~layers.VMM
    if of_processes and not design.has_processes:
        raise UsageError(
            f"--without {', '.join(layers.names(of_processes))} needs device processes",
            hint=f"with --sandbox {sandbox} there is no such layer to leave out",
        )
    if without & layers.SECCOMP and seccomp in ("filter", "strict"):
        raise UsageError(f"--without seccomp contradicts --seccomp {seccomp}")
    if require & layers.SECCOMP and seccomp == "off":
        raise UsageError("--require seccomp contradicts --seccomp off")
    if sandbox == "none" and ipc is not None:
        raise UsageError("--ipc needs a --sandbox", hint="with --sandbox none there is nobody to talk to")
    if not design.has_processes and seccomp not in (None, "off"):
        raise UsageError(
            f"--seccomp {seccomp} needs device processes",
            hint="--sandbox process or per-device; a filter on kvmbox's own threads is another matter",
        )
    return design


def _check_live(config: RunConfig) -> None:
    if config.console is not None or not os.isatty(1):
        raise UsageError(
            "--screen live needs a terminal on stdout",
            hint="--screen end prints the text when the run ends",
        )
    if config.serial_limit is not None:
        raise UsageError(
            "--screen live contradicts --serial-limit",
            hint="what is drawn would count as output of the guest",
        )


def check(config: RunConfig, restart_budget: int | None) -> None:
    """UsageError where options contradict each other. `restart_budget` is the one that was asked for."""
    check_cpu(config.cpu)
    _refuse_other("--segments", config.segments, DATA_SEGMENTS)
    _refuse_other("--firmware-tables", config.firmware_tables, FIRMWARE_CHOICES)
    _refuse_other("--serial-overflow", config.serial_overflow, SERIAL_OVERFLOWS)
    _refuse_other("--rtc", config.rtc, RTC_POLICIES)
    _refuse_other("--screen", config.screen, SCREEN_CHOICES)
    if config.screen == "live":
        _check_live(config)
    if config.rtc != DEFAULT_RTC and config.start is None:
        raise UsageError(
            f"--rtc {config.rtc} needs --from", hint="the clock of a machine that boots is --rtc-base"
        )
    if config.snapshot_stop and not config.snapshot_when:
        raise UsageError("--snapshot-stop needs --snapshot-when", hint="say when the snapshot is taken")
    if len(config.snapshot_when) > MOST_SNAPSHOTS:
        raise UsageError(f"--snapshot-when more than {MOST_SNAPSHOTS} times")
    if config.core_always and config.core is None:
        raise UsageError("--core-always needs --core", hint="name the file of the core")
    if config.inject and (config.snapshot_when or config.start is not None):
        raise UsageError(
            f"--inject contradicts {'--from' if config.start is not None else '--snapshot-when'}",
            hint=NO_FAULTS_IN_SNAPSHOTS,
        )
    _refuse_other("--on-device-crash", config.on_device_crash, CRASH_ANSWERS)
    status = config.success_status
    for option, value in (
        ("--load-address", config.load_address),
        ("--entry", config.entry),
        ("--segments", config.segments),
    ):
        if value is not None and config.boot != "real":
            raise UsageError(f"{option} needs --boot real", hint="other images say where they belong")
    if status is not None and not 1 <= status <= 255:
        raise UsageError(f"--success-status {status} is not between 1 and 255")
    if status is not None and status % 2 == 0:
        raise UsageError(
            f"--success-status {status} is even, a guest's own statuses are odd",
            hint="a guest that writes V to the debug-exit port ends with (V << 1 | 1) & 0xff",
        )
    if status is not None and config.debug_exit_port is None:
        raise UsageError(
            "--success-status needs the debug-exit port, and --debug-exit is none",
            hint="only a write to that port gives an odd status",
        )
    if config.record_limit is not None and config.record is None:
        raise UsageError("--record-limit needs --record", hint="name the file to record to")
    if config.profile_rate is not None and config.profile is None:
        raise UsageError("--profile-rate needs --profile", hint="name the file to write the profile to")
    if config.on_device_crash != "fail" and not config.design.has_processes:
        raise UsageError(
            f"--on-device-crash {config.on_device_crash} needs device processes",
            hint=f"with --sandbox {config.design.sandbox} a model that fails takes kvmbox along",
        )
    if restart_budget is not None and config.on_device_crash != "restart":
        raise UsageError("--restart-budget needs --on-device-crash restart")
    if config.restart_budget < 1:
        raise UsageError(f"--restart-budget {config.restart_budget} is less than 1")


def _refuse_other(option: str, value: str | None, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"{option} '{value}' is none of {', '.join(choices)}")
