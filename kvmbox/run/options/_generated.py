"""The parameters of `Machine`, for type checkers: tools/generate_options.py makes it of `option_table`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Literal, TypedDict

from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.console.captured_port import Capture
from kvmbox.host.console.serial_backends import Backends
from kvmbox.host.disk.stores import DiskRequest
from kvmbox.host.disk.transfers import Store
from kvmbox.run.options.choices import FirmwareFile, ModuleSpec, SavedMachine, SnapshotCondition, SymbolSpec
from kvmbox.run.options.values import Several


class SnapshotOptions(TypedDict, total=False):
    """What a snapshot leaves open."""

    serial: Backends
    debugcon: str | Capture
    keyboard: Literal["none", "console"]
    serial_overflow: Literal["wait", "drop"]
    serial_limit: int | str | None
    screen: Literal["auto", "end", "live", "live,as=blocks", "live,as=kitty", "live,as=sixel", "never"]
    picture: str | os.PathLike[str] | None
    timeout: float | None
    expect: Several[str | bytes]
    expect_picture: str | os.PathLike[str] | None
    fail_on: Several[str | bytes]
    success_status: int | None
    no_reboot: bool
    gdb: str | None
    vnc: str | None
    snapshot_when: Several[str | SnapshotCondition]
    snapshot_stop: bool
    rtc: Literal["stand-still", "catch-up"]
    sandbox: Literal["none", "thread", "process", "per-device"]
    seccomp: Literal["filter", "strict", "off"] | None
    ipc: str | None
    on_device_crash: Literal["fail", "restart", "all-ones"]
    restart_budget: int | None
    require: Several[str]
    without: Several[str]
    pin: int | str
    inject: Several[str]
    symbols: Several[str | os.PathLike[str] | SymbolSpec]
    source: Several[str | os.PathLike[str]]
    core: str | os.PathLike[str] | None
    core_always: bool
    profile: str | os.PathLike[str] | None
    profile_rate: int | str | None
    record: str | os.PathLike[str] | None
    record_limit: int | str | None
    console: Literal["capture", "stdio"]
    sample_exits: bool
    transcript: bool
    kvm_path: str
    devices: Several[DeviceSpec]
    resources: Mapping[str, Store] | None
    say: Callable[[str], None] | None


class MachineOptions(SnapshotOptions, total=False):
    """All parameters."""

    memory: int | str
    cpus: int
    cpu: str
    rtc_base: int | str
    pci: Literal["auto", "on", "off"]
    testdev: bool
    boot: str
    append: str
    modules: Several[str | os.PathLike[str] | ModuleSpec]
    initrd: str | os.PathLike[str] | None
    bios: str | os.PathLike[str] | None
    firmware_tables: Literal["auto", "none"]
    fw_cfg: Several[str | FirmwareFile]
    load_address: int | str | None
    entry: tuple[int, int] | str | None
    segments: Literal["zero", "cs"] | None
    disks: Several[str | os.PathLike[str] | DiskRequest]
    cdroms: Several[str | os.PathLike[str] | DiskRequest]
    disk_overlay: int | str
    rng: bool
    virtio_console: str | Capture | None
    nets: Several[str]
    uart_pace: bool
    debug_exit: int | str | None
    start: SavedMachine | None
