"""One run, checked: what the options of `run.options.option_table` come to together, and the refusal of
contradictions.

A UsageError names the option as the command line spells it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.choose import AUTO
from kvmbox.boot.plan import BUILTIN_BIOS, NO_BIOS
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.console.serial_backends import KeyboardSpec, SerialSpec
from kvmbox.jail import layers
from kvmbox.remote.process.device_pool import Design, Sandbox, Seccomp
from kvmbox.run.options.choices import (
    DEFAULT_IPC,
    DEFAULT_RTC,
    DEFAULT_SECCOMP,
    DataSegments,
    FirmwareChoice,
    FirmwareFile,
    ModuleSpec,
    RtcPolicy,
    SerialOverflow,
    SymbolSpec,
)
from kvmbox.run.options.definition import READ, WRITTEN
from kvmbox.run.options.option_table import PARAMETERS
from kvmbox.run.part_loader import load

DISKS: Final = ("disks", "cdroms")
"""The options that name what is a disk of the guest."""

NO_FAULTS_IN_SNAPSHOTS: Final = "a snapshot has no room for how far the faults have come"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.console.captured_port import Capture
    from kvmbox.host.disk.transfers import Store
    from kvmbox.run.options.choices import SavedMachine


class RunConfig(Value):
    """One run, checked. Sizes are bytes, `timeout` is seconds.

    `boot` is a way to boot; `bios` is None where the image decides whether there is a BIOS, else "builtin",
    "none" or a file. `entry` is (CS, IP).
    `rtc_base` is the wall clock at guest time 0, in seconds since 1970. `require` is the mask of sandbox
    layers (`jail.layers`) that must not be missing. `devices` are put on the board beside those of a PC;
    `resources` are what their `Resource` grants name. `start` is the saved machine that the run starts from,
    which decides many of the others. `console` is where the text of the screen goes, None for stdout.
    `parts` are the optional parts that are wanted, each with its options.
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
    require: int
    kvm_path: str
    devices: tuple[DeviceSpec, ...]
    resources: Mapping[str, Store]
    parts: Mapping[str, Mapping[str, Any]]
    start: SavedMachine | None = None
    rtc: RtcPolicy = DEFAULT_RTC
    keyboard: KeyboardSpec | None = None
    console: Capture | None = None
    _shown = ("guest",)

    def of_part(self, name: str) -> Any:
        """The value of an option that a part obeys."""
        option = PARAMETERS[name]
        return self.parts.get(option.part, {}).get(name, option.parameter_default)

    @property
    def bios_file(self) -> str | None:
        """The firmware image of --bios FILE, or None."""
        return None if self.bios in (BUILTIN_BIOS, NO_BIOS) else self.bios

    @property
    def files_written(self) -> list[tuple[str, str]]:
        """What for, and the path, of each file that the run writes, and of each socket that it makes."""
        found = list(self._files(WRITTEN))
        found += [(f"--serial {one.port}=file:", one.path) for one in self.serial.values() if one.path]
        found += self._disks_written
        if self.debugcon.path:
            found.append(("--debugcon file:", self.debugcon.path))
        found += [("--net …,pcap=", one.pcap) for one in self.of_part("nets") if one.pcap]
        found += [
            ("--net socket:", one.target.removeprefix("unix:")) for one in self.of_part("nets") if one.listen
        ]
        words = {"virtio_console": "--virtio-console file:", "gdb": "--gdb unix:", "vnc": "--vnc unix:"}
        places = [(word, self.of_part(name)) for name, word in words.items()]
        found += [(word, place.path) for word, place in places if place is not None and place.path]
        return found

    @property
    def files_read(self) -> list[tuple[str, str]]:
        """The same of the files that it reads."""
        backing = [("--disk …,backing=", one.backing) for one in self.of_part("disks") if one.backing]
        if self.start is not None:
            disks = [("a disk of the snapshot", one.path) for name in DISKS for one in self.of_part(name)]
            return [("--from", self.start.path), *disks, *backing]
        read = [one for one in self._files(READ) if one not in self._disks_written]
        return [*(() if self.boots_drive else [("the guest's image", self.guest)]), *read, *backing]

    @property
    def boots_drive(self) -> bool:
        """Whether the guest boots from one of its own drives. `guest` is the file of that then."""
        return any(one.boots for name in ("disks", "cdroms") for one in self.of_part(name))

    @property
    def _disks_written(self) -> list[tuple[str, str]]:
        return [("--disk", one.path) for one in self.of_part("disks") if one.mode == "write"]

    def _files(self, use: str) -> Iterator[tuple[str, str]]:
        for option in PARAMETERS.values():
            if option.file == use:
                value = self.of_part(option.name) if option.part else getattr(self, option.name)
                value = self.bios_file if option.name == "bios" else value
                yield from ((option.spelling, path) for path in option.paths(value))


def configured(
    guest: str,
    options: Mapping[str, Any],
    *,
    flat: bool,
    serial: dict[str, SerialSpec],
    debugcon: SerialSpec,
    keyboard: KeyboardSpec,
    console: Capture | None,
) -> RunConfig:
    """The run of `options`, as `run.options.option_table.taken` gives them. A `flat` bundled image boots
    in one way.

    `console` and the three before it say what the options of these names mean. Raises UsageError.
    """
    required = layer_mask("--require", options["require"])
    left_out = layer_mask("--without", options["without"])
    own = {
        "guest": guest,
        "serial": serial,
        "debugcon": debugcon,
        "keyboard": keyboard,
        "console": console,
        "memory_size": options["memory"],
        "boot": "real" if flat and options["boot"] == AUTO else options["boot"],
        "debug_exit_port": options["debug_exit"],
        "pin": str(options["pin"]),
        "design": design_of(
            options["sandbox"], options["seccomp"], options["ipc"], without=left_out, require=required
        ),
        "require": required,
        "resources": dict(options["resources"] or {}),
        "parts": wanted_parts(options),
    }
    same = {name: options[name] for name in RunConfig.__match_args__ if name in options}
    config = RunConfig(**(same | own))
    check(config, options)
    return config


def wanted_parts(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The parts of which an option has another value than its default, each with all its options."""
    of_parts = {name: option for name, option in PARAMETERS.items() if option.part}
    wanted = {one.part for name, one in of_parts.items() if options[name] != one.parameter_default}
    found: dict[str, dict[str, Any]] = {part: {} for part in wanted}
    for name, option in of_parts.items():
        if option.part in wanted:
            found[option.part][name] = options[name]
    return found


def check_cpu(model: str) -> None:
    """Refuse what `--cpu` cannot mean. Raises UsageError."""
    if model not in ("host", "max"):  # these need no table of features
        from kvmbox.kvm.cpuid.cpu_models import parse_model

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
    if config.console is not None or not os.isatty(1) or os.environ.get("TERM") == "dumb":
        raise UsageError(
            "--screen live needs a terminal on stdout that is not dumb",
            hint="--screen end prints the text when the run ends",
        )
    if config.serial_limit is not None:
        raise UsageError(
            "--screen live contradicts --serial-limit",
            hint="what is drawn would count as output of the guest",
        )


def check(config: RunConfig, options: Mapping[str, Any]) -> None:
    """UsageError where options contradict each other. `options` are those from which `config` was made."""
    check_cpu(config.cpu)
    if options["screen"].startswith("live"):
        _check_live(config)
    if config.rtc != DEFAULT_RTC and config.start is None:
        raise UsageError(
            f"--rtc {config.rtc} needs --from", hint="the clock of a machine that boots is --rtc-base"
        )
    if options["snapshot_when"]:
        load("snapshot.snapshots", "check")(options)
    if options["inject"] and (options["snapshot_when"] or config.start is not None):
        raise UsageError(
            f"--inject contradicts {'--from' if config.start is not None else '--snapshot-when'}",
            hint=NO_FAULTS_IN_SNAPSHOTS,
        )
    status = config.success_status
    for option, value in (
        ("--load-address", config.load_address),
        ("--entry", config.entry),
        ("--segments", config.segments),
    ):
        if value is not None and config.boot != "real":
            raise UsageError(f"{option} needs --boot real", hint="other images say where they belong")
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
    answer = options["on_device_crash"]
    if answer != "fail" and not config.design.has_processes:
        raise UsageError(
            f"--on-device-crash {answer} needs device processes",
            hint=f"with --sandbox {config.design.sandbox} a model that fails takes kvmbox along",
        )
    if options["restart_budget"] is not None and answer != "restart":
        raise UsageError("--restart-budget needs --on-device-crash restart")
