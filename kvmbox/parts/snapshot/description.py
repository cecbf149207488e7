"""The description of a machine in a snapshot: everything but bulk data, as values and as JSON. Pure.

`decode` accepts exactly what `encode` writes: the same fields, of the same types, within bounds. What refers
to a section names it; the table of sections is part of the description.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kvmbox.base.value_classes import Value
from kvmbox.contract.pci_function import PCI
from kvmbox.kvm.cpuid.leaves import Leaf
from kvmbox.parts.snapshot import file_layout
from kvmbox.parts.snapshot.file_layout import Header, Section, check_section, damaged
from kvmbox.parts.snapshot.strict_json import MAX_TEXT, Fields, Read, maybe, parse, texts, up_to, within

MAX_CPUS: Final = 32
MAX_LEAVES: Final = 256
MAX_DEVICES: Final = 64
MAX_LINES: Final = 64
MAX_FILES: Final = 64
MAX_ROMS: Final = 4
MAX_DISKS: Final = 32
MAX_WINDOW: Final = 1 << 20
"""How many bytes a window of a device to a disk may have."""

MAX_LINE: Final = 1024
"""How many bytes a line of the console has that ports which share a screen compare
(`host.console.duplicate_output`).
"""

MAX_HISTORY: Final = 64
"""How many lines of each port the console may still expect from the other one
(`host.console.duplicate_output`).
"""

_NO_FILES: Final = ("builtin", "none")
"""What a machine's `bios` may be that is no file."""

_MAX_32: Final = (1 << 32) - 1
_MAX_TIME: Final = (1 << 62) - 1
_TIME: Final = within(0, _MAX_TIME)
_CRC: Final = within(0, _MAX_32)
_SHORT: Final = up_to(64)
_LONG: Final = 1 << 16

RUNS: Final = "memory"
"""The section with the runs of blocks of memory that are not zero."""


VIDEO: Final = "frame buffer"
"""The section with the frame buffer, if the guest has one, without the zeros at its end."""


cpu_section: Final = "cpu {}".format
"""The section with the state of a vCPU."""

device_section: Final = "device {}".format
"""The section with the snapshot of a device's model."""

file_section: Final = "file {}".format
"""The section with the bytes of a file of the boot."""

disk_section: Final = "disk {}".format
"""The section with what the guest has written to a disk, as its overlay has it."""

queues_section: Final = "queues {}".format
"""The section with what the VMM knows of a device's virtqueues: see `remote.published.queues`."""

PCI_SECTION: Final = "pci"
"""The section with what the VMM knows of the PCI bus: see `remote.bus.pci_fabric`."""


window_section: Final = "window {}".format
"""The section with the bytes of a device's window to a disk."""

rom_section: Final = "rom {}".format
"""The section with the bytes of a ROM."""


class HostFacts(Value):
    """What the snapshot needs of a host.

    `leaves` is what CPUID shows on the first vCPU; `tsc_khz` is the rate of the time-stamp counter, 0 where
    KVM does not tell; `xsave_size` is in bytes; `sregs2` says whether the vCPUs' states have PDPTEs.
    """

    pvm: bool
    tsc_khz: int
    xsave_size: int
    sregs2: bool
    leaves: tuple[Leaf, ...]


class BootFacts(Value):
    """How the machine was booted, and would be again: the options of `RunConfig` of the same names.

    `files` are the paths of all files of the boot, whose bytes are in sections. `format` is the way that was
    taken.
    """

    format: str
    guest: str
    append: str
    modules: tuple[tuple[str, str], ...]
    initrd: str | None
    boot: str
    bios: str | None
    load_address: int | None
    entry: tuple[int, int] | None
    segments: str | None
    firmware_tables: str
    fw_cfg: tuple[tuple[str, str], ...]
    files: tuple[str, ...]


class BoardFacts(Value):
    """The options of `RunConfig` that decide which devices there are, and what the CPUs are."""

    cpus: int
    cpu: str
    serial: tuple[str, ...]
    rtc_base: int
    debug_exit_port: int | None
    uart_pace: bool
    testdev: bool
    disk_overlay: int
    rng: bool
    pci: str
    nets: tuple[str, ...]


class DiskFacts(Value):
    """A disk of the guest: its name, and what `DiskRequest` says that was asked for. `size` is in bytes.

    `checksum` is the SHA-256 of its file, empty of the image that the guest was booted from.
    """

    name: str
    path: str
    mode: str
    format: str
    on: str
    serial: str
    backing: str
    is_cd: bool
    boots: bool
    size: int
    checksum: str


class WindowFacts(Value):
    """The open window of a device to a disk: see `remote.published.data_window.WindowState`."""

    device: str
    resource: int
    tag: int
    offset: int
    size: int
    use: int
    position: int


class Times(Value):
    """Guest time and KVM's clock in ns; when the snapshot was taken in ns since 1970.

    `reset_at` is the guest time of the last reset, None where there was none. `counter` is the time-stamp
    counter of the first vCPU.
    """

    guest: int
    kvm_clock: int
    taken: int
    counter: int
    reset_at: int | None


class DeviceFacts(Value):
    """One device. `checksum` is that of its specification, `started` whether it has a state."""

    name: str
    checksum: int
    started: bool


class LineFacts(Value):
    """One interrupt line: masks of the sources that ask for it, and of those that are heard (-1: all)."""

    gsi: int
    asserted: int
    heard: int


class PortText(Value):
    """What one port has on the screen, of two ports that share it (`host.console.duplicate_output`)."""

    name: str
    text: bytes
    history: tuple[bytes, ...]
    shown: int
    free: bool
    overlong: bool


class Description(Value):
    """A machine, without its memory and the sections.

    `late_forbidden` are the ports whose writes must not be late now. `pics` are the interrupt controllers, as
    KVM gives them. `roms` are the guest-physical addresses of memory that only can be read. `mirrors` is
    what ports that share a screen have printed of their present lines.
    """

    host: HostFacts
    boot: BootFacts
    board: BoardFacts
    times: Times
    devices: tuple[DeviceFacts, ...]
    lines: tuple[LineFacts, ...]
    late_forbidden: tuple[int, ...]
    pics: tuple[bytes, ...]
    roms: tuple[int, ...]
    mirrors: tuple[tuple[PortText, ...], ...]
    disks: tuple[DiskFacts, ...] = ()
    windows: tuple[WindowFacts, ...] = ()
    queues: tuple[str, ...] = ()


def encode(description: Description, sections: Mapping[str, Section]) -> bytes:
    """The description as JSON, with the table of sections."""
    data = _plain(description)
    data["host"]["leaves"] = [list(map(int, leaf.as_dict().values())) for leaf in description.host.leaves]
    data["boot"] |= {
        "modules": [{"path": path, "arguments": text} for path, text in description.boot.modules],
        "fw_cfg": [{"name": name, "path": path} for name, path in description.boot.fw_cfg],
    }
    data["late_forbidden"] = [[port] for port in description.late_forbidden]
    data["roms"] = [[address] for address in description.roms]
    data["pics"] = [{"state": state} for state in data["pics"]]
    for ports in data["mirrors"]:
        for port in ports:
            port["history"] = [{"line": line} for line in port["history"]]
    data["mirrors"] = [{"ports": ports} for ports in data["mirrors"]]
    data["sections"] = [section.as_dict() | {"name": name} for name, section in sections.items()]
    return json.dumps(data, separators=(",", ":")).encode("ascii")


def _plain(value: Any) -> Any:
    """The same of objects, lists and texts."""
    if isinstance(value, Value):
        return {name: _plain(one) for name, one in value.as_dict().items()}
    if isinstance(value, tuple):
        return list(map(_plain, value))
    return value.hex() if isinstance(value, bytes) else value


def decode(text: bytes, header: Header) -> tuple[Description, dict[str, Section]]:
    """What `encode` was given. Raises SnapshotFileError for anything that it cannot have written."""
    description, sections = parse(text).all(
        lambda fields: (
            _description(fields),
            _sections(fields.objects("sections", file_layout.MAX_SECTIONS, _section), header),
        )
    )
    _check(description, sections)
    return description, sections


def _description(fields: Fields) -> Description:
    return Description(
        fields.object("host", _host),
        fields.object("boot", _boot),
        fields.object("board", _board),
        fields.object("times", _times),
        fields.objects("devices", MAX_DEVICES, _device),
        fields.objects("lines", MAX_LINES, _line),
        tuple(port for (port,) in fields.rows("late_forbidden", MAX_DEVICES, 1, 0xFFFF)),
        fields.objects("pics", 3, lambda one: one.data("state", 520)),
        tuple(address for (address,) in fields.rows("roms", MAX_ROMS, 1, 1 << 51)),
        fields.objects("mirrors", 2, lambda one: one.objects("ports", 2, _port)),
        fields.objects("disks", MAX_DISKS, _disk),
        fields.objects("windows", MAX_DEVICES, _window),
        fields.texts("queues", MAX_DEVICES),
    )


def _host(fields: Fields) -> HostFacts:
    return fields.value(
        HostFacts,
        tsc_khz=within(0, _MAX_32),
        xsave_size=within(4096, 1 << 20),
        leaves=lambda fields, name: tuple(
            Leaf(function, index, bool(indexed), *registers)
            for function, index, indexed, *registers in fields.rows(name, MAX_LEAVES, 7, _MAX_32)
        ),
    )


def _pairs(first: str, second: str, most: int) -> Read:
    """Reads a list of objects of two texts, of which `second` has at most `most` characters."""
    return lambda fields, name: fields.objects(
        name, MAX_FILES, lambda one: (one.text(first), one.text(second, most))
    )


def _boot(fields: Fields) -> BootFacts:
    return fields.value(
        BootFacts,
        format=_SHORT,
        append=up_to(_LONG),
        modules=_pairs("path", "arguments", _LONG),
        boot=_SHORT,
        entry=maybe(lambda fields, name: fields.numbers(name, 2, 0xFFFF)),
        firmware_tables=_SHORT,
        fw_cfg=_pairs("name", "path", MAX_TEXT),
        files=texts(3 * MAX_FILES),
    )


def _board(fields: Fields) -> BoardFacts:
    return fields.value(
        BoardFacts,
        cpus=within(1, MAX_CPUS),
        serial=texts(16),
        rtc_base=within(-_MAX_TIME, _MAX_TIME),
        debug_exit_port=maybe(within(0, 0xFFFF)),
        disk_overlay=within(1),
        nets=texts(16),
    )


def _times(fields: Fields) -> Times:
    times = dict.fromkeys(("guest", "kvm_clock", "taken"), _TIME)
    found = fields.value(Times, **times, reset_at=maybe(_TIME))
    if found.reset_at is not None and found.reset_at > found.guest:
        raise damaged("a reset in the future")
    return found


def _device(fields: Fields) -> DeviceFacts:
    return fields.value(DeviceFacts, name=_SHORT, checksum=_CRC)


def _disk(fields: Fields) -> DiskFacts:
    short = ("name", "mode", "format", "on", "serial", "checksum")
    return fields.value(DiskFacts, **dict.fromkeys(short, _SHORT))


def _window(fields: Fields) -> WindowFacts:
    return fields.value(
        WindowFacts,
        device=_SHORT,
        resource=within(0, 255),
        tag=within(0, _MAX_32),
        size=within(1, MAX_WINDOW),
        use=within(1, 2),
        position=within(0, MAX_WINDOW),
    )


def _line(fields: Fields) -> LineFacts:
    return fields.value(LineFacts, gsi=within(0, 255), heard=within(-1))


def _port(fields: Fields) -> PortText:
    return PortText(
        fields.text("name", 64),
        text := fields.data("text", MAX_LINE),
        fields.objects("history", MAX_HISTORY, lambda one: one.data("line", MAX_LINE + 2)),
        fields.integer("shown", 0, len(text)),
        fields.flag("free"),
        fields.flag("overlong"),
    )


def _section(fields: Fields) -> tuple[str, Section]:
    return fields.text("name", 128), fields.value(Section, checksum=_CRC)


def _sections(items: Iterable[tuple[str, Section]], header: Header) -> dict[str, Section]:
    found: dict[str, Section] = {}
    for name, section in items:
        if name in found:
            raise damaged(f"section '{name}' twice")
        found[name] = check_section(section, header)
    if sum(section.size for section in found.values()) > file_layout.MAX_SECTION_BYTES:
        raise damaged("its sections are too long")
    return found


def _check(description: Description, sections: Mapping[str, Section]) -> None:
    """Every part that is referred to is there, and none that is not."""
    wanted = [RUNS]
    wanted += [cpu_section(index) for index in range(description.board.cpus)]
    wanted += [device_section(device.name) for device in description.devices if device.started]
    wanted += [disk_section(disk.name) for disk in description.disks]
    wanted += [window_section(window.device) for window in description.windows]
    wanted += [queues_section(name) for name in description.queues]
    wanted += [PCI_SECTION] * any(device.name == PCI for device in description.devices)
    wanted += [rom_section(index) for index in range(len(description.roms))]
    wanted += [VIDEO] if VIDEO in sections else []
    wanted += [file_section(index) for index in range(len(description.boot.files))]
    if len(set(wanted)) != len(wanted) or set(wanted) != set(sections):
        raise damaged("its sections are not those of its machine")
    boot = description.boot
    paths = [boot.guest, *(path for path, _ in boot.modules), *(path for _, path in boot.fw_cfg)]
    paths += [path for path in (boot.initrd, boot.bios) if path not in (None, *_NO_FILES)]
    if not set(paths) <= set(boot.files):
        raise damaged("a file of the boot is missing")
