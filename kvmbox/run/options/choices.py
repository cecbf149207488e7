"""What options of a run may be: choices, defaults, and the values that texts of options mean.

A UsageError names the option as the command line spells it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeVar, get_args

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.choose import AUTO, WAY_NAMES
from kvmbox.remote.process.device_pool import PROCESS, SANDBOX_CHOICES, SECCOMP_MODES
from kvmbox.remote.transport.ipc_table import DEFAULT_IPC, IPC_OPTIONS
from kvmbox.run.options import values

__all__ = ["DEFAULT_IPC", "IPC_OPTIONS", "SANDBOX_CHOICES", "WAY_NAMES"]

_Spec = TypeVar("_Spec")

DataSegments = Literal["zero", "cs"]
FirmwareChoice = Literal["auto", "none"]
PciChoice = Literal["auto", "on", "off"]
SerialOverflow = Literal["wait", "drop"]
KeyboardInput = Literal["none", "console"]
RtcPolicy = Literal["stand-still", "catch-up"]
OnDeviceCrash = Literal["fail", "restart", "all-ones"]
ScreenChoice = Literal["auto", "end", "live", "live,as=blocks", "live,as=kitty", "live,as=sixel", "never"]

DATA_SEGMENTS: Final[tuple[DataSegments, ...]] = get_args(DataSegments)
FIRMWARE_CHOICES: Final[tuple[FirmwareChoice, ...]] = get_args(FirmwareChoice)
PCI_CHOICES: Final[tuple[PciChoice, ...]] = get_args(PciChoice)
RTC_POLICIES: Final[tuple[RtcPolicy, ...]] = get_args(RtcPolicy)
SERIAL_OVERFLOWS: Final[tuple[SerialOverflow, ...]] = get_args(SerialOverflow)
SCREEN_CHOICES: Final[tuple[ScreenChoice, ...]] = get_args(ScreenChoice)
KEYBOARD_INPUTS: Final[tuple[KeyboardInput, ...]] = get_args(KeyboardInput)
CRASH_ANSWERS: Final[tuple[OnDeviceCrash, ...]] = get_args(OnDeviceCrash)
SECCOMP_CHOICES: Final = tuple(SECCOMP_MODES)

DEFAULT_BOOT: Final = AUTO
DEFAULT_DISK_OVERLAY: Final = 256 * layout.MIB
DEFAULT_CPU: Final = "host"
DEFAULT_FIRMWARE: Final = FIRMWARE_CHOICES[0]
DEFAULT_PCI: Final = PCI_CHOICES[0]
DEFAULT_SERIAL_OVERFLOW: Final = SERIAL_OVERFLOWS[0]
DEFAULT_SCREEN: Final = SCREEN_CHOICES[0]
DEFAULT_KEYBOARD: Final = KEYBOARD_INPUTS[0]
DEFAULT_RTC: Final = RTC_POLICIES[0]
DEFAULT_ON_DEVICE_CRASH: Final = CRASH_ANSWERS[0]
DEFAULT_SANDBOX: Final = PROCESS
DEFAULT_SECCOMP: Final = SECCOMP_CHOICES[0]
DEFAULT_RTC_BASE: Final = "utc"
DEFAULT_PIN: Final = "auto"
DEFAULT_KVM_PATH: Final = "/dev/kvm"

DEFAULT_RESTART_BUDGET: Final = 16
"""How many restarts a run may have before a device that keeps dying ends it."""

DEFAULT_PROFILE_RATE: Final = 99
"""How many samples --profile takes a second: not in step with a guest's timer of 100 or 1000 Hz."""


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


class SavedMachine(Protocol):
    """A machine in a file, whose header is good: what `Machine` gets as `start`."""

    @property
    def path(self) -> str:
        """The file."""
        ...

    def close(self) -> None:
        """Close the file. Idempotent."""
        ...


class SnapshotCondition(Value):
    """One --snapshot-when: exactly one of text, port and time (ns of guest time), and the file."""

    path: str
    text: bytes | None = None
    port: int | None = None
    time: int | None = None

    @property
    def words(self) -> str:
        """When that is, as part of a sentence."""
        if self.text is not None:
            return f"it had printed {self.text.decode('utf-8', 'replace')!r}"
        if self.port is not None:
            return f"it had written to port {self.port:#x}"
        return f"{(self.time or 0) / 1e9:g} s of guest time"


def spec(
    option: str,
    value: Any,
    kind: type[_Spec],
    parse: Callable[[str], _Spec],
    of_path: Callable[[str], _Spec] | None = None,
) -> _Spec:
    """One value of an option: a text, which is parsed, or a value of `kind`.

    `of_path` makes one of a path, which is not parsed. Raises UsageError.
    """
    if isinstance(value, kind):
        return value
    if isinstance(value, str | bytes):
        return parse(os.fsdecode(value))
    if isinstance(value, os.PathLike) and of_path is not None:
        return of_path(os.fspath(value))
    raise UsageError(f"{option}: {value!r} is neither text nor a {kind.__name__}")


def module_spec(value: Any) -> ModuleSpec:
    """A value of --module. Raises UsageError."""
    return spec("--module", value, ModuleSpec, parse_module, ModuleSpec)


def firmware_file(value: Any) -> FirmwareFile:
    """A value of --fw-cfg. Raises UsageError."""
    return spec("--fw-cfg", value, FirmwareFile, parse_fw_cfg)


def symbol_spec(value: Any) -> SymbolSpec:
    """A value of --symbols. Raises UsageError."""
    return spec("--symbols", value, SymbolSpec, parse_symbols, SymbolSpec)


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


def expected_text(text: str | bytes) -> bytes:
    """A text of --expect or --fail-on as bytes. Raises UsageError."""
    found = os.fsencode(text)
    if not found:
        raise UsageError("--expect and --fail-on want a text that is not empty")
    return found
