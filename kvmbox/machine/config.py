"""What a run was asked to do: the command line's options, checked, with no trace of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from kvmbox import layout
from kvmbox.board import DeviceSpec
from kvmbox.host.serial import DEBUGCON_DEFAULT, SerialSpec
from kvmbox.lean import Value
from kvmbox.processes.pool import Design

DEFAULT_RESTART_BUDGET: Final = 16
"""How many restarts a run may have before a device that keeps dying ends it."""


TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.host.transfers import Store

_NO_RESOURCES: Final[Mapping[str, Store]] = {}


class ModuleSpec(Value):
    """A Multiboot module: the file to load and the words behind its name."""

    path: str
    arguments: str = ""


class RunConfig(Value):
    """One run. Sizes are bytes, times nanoseconds unless said otherwise.

    `rtc_base` is the wall clock at guest time 0, in seconds since 1970. `timeout` is seconds or None.
    `require` is the mask of sandbox layers (`sandbox.layers`) that must not be missing.
    With `confine` the whole calling process is confined, for good, before the guest starts (`sandbox.vmm`);
    `tracebacks` says that it is to be able to print them afterwards. `devices` are put on the board beside
    those of a PC; `resources` are what their `Resource` grants name.
    """

    guest: str
    serial: dict[str, SerialSpec]
    rtc_base: int
    memory_size: int = layout.DEFAULT_MEMORY
    cpus: int = 1
    append: str = ""
    modules: tuple[ModuleSpec, ...] = ()
    mode: Literal["auto", "real"] = "auto"
    load_address: int | None = None
    debugcon: SerialSpec = DEBUGCON_DEFAULT
    serial_overflow: str = "wait"
    serial_limit: int | None = None
    timeout: float | None = None
    expect: tuple[bytes, ...] = ()
    fail_on: tuple[bytes, ...] = ()
    success_status: int | None = None
    uart_pace: bool = False
    debug_exit_port: int | None = layout.DEBUG_EXIT_PORT
    no_reboot: bool = False
    pin: str = "auto"
    design: Design = Design()
    on_device_crash: str = "fail"
    restart_budget: int = DEFAULT_RESTART_BUDGET
    require: int = 0
    record: str | None = None
    record_limit: int | None = None
    kvm_path: str = "/dev/kvm"
    confine: bool = False
    tracebacks: bool = False
    devices: tuple[DeviceSpec, ...] = ()
    resources: Mapping[str, Store] = _NO_RESOURCES
