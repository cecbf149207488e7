"""Devices that only some machines have: disks, virtio, what the built-in BIOS needs, and the test device.

Pure data, as `board`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.base.stand_ins import Value
from kvmbox.devices.board import (
    BIOS_TEXT,
    VIRTIO_CONSOLE,
    AddressRange,
    BiosReport,
    BoardOptions,
    BootDrive,
    DeviceSpec,
    Grant,
    Input,
    Irq,
    Medium,
    Output,
    Parameter,
    Queues,
    Resource,
    pc_board,
)

BOOT_DISK: Final = "boot-disk"
"""Name of the disks of the built-in BIOS, and of the resource of the first one: the guest's image."""


def pc_extras(options: BoardOptions) -> list[DeviceSpec]:
    """What of a board has to be asked for."""
    testdev = [_testdev()] if options.testdev else []
    return testdev + (_bios_devices(options.boot_drives) if options.has_bios else [])


VNC: Final = "vnc"
"""Name of the device that speaks with a client of --vnc, of its type, and of its streams."""


def whole_board(options: BoardOptions) -> list[DeviceSpec]:
    """All devices of a PC without disks."""
    return pc_board(options) + pc_extras(options)


def _testdev() -> DeviceSpec:
    port = layout.TESTDEV_PORT
    return DeviceSpec(
        "testdev",
        "testdev",
        "pc_testdev",
        ports=(
            AddressRange(port, 9),
            # Not 0xE9, which is the debug console's.
            AddressRange(port + 10, 2, offset=10),
            AddressRange(layout.TESTDEV_IRQ_PORT, layout.TESTDEV_IRQ_COUNT, offset=16),
        ),
        mmio=(AddressRange(layout.TESTDEV_MEMORY, layout.TESTDEV_MEMORY_SIZE, offset=0x1_0000),),
        grants=tuple(Irq(line) for line in range(layout.TESTDEV_IRQ_COUNT)),
        natural_sizes=frozenset({2, 4, 8}),
        on_demand=True,
    )


class IdeDrive(Value):
    """A drive of an IDE channel. `name` is that of the medium.

    Its `sectors` have 512 bytes, or 2048 on a CD. `serial` has 20 ASCII characters at most.
    """

    name: str
    sectors: int
    is_cd: bool = False
    writable: bool = False
    serial: str = ""

    @property
    def parameter(self) -> bytes:
        """The drive as its model gets it."""
        from kvmbox.devices.ide.model import CD, DISK, PARAMETERS, READ_ONLY

        kind = CD if self.is_cd else DISK if self.writable else DISK | READ_ONLY
        return PARAMETERS.pack(kind, self.sectors, self.serial.encode("ascii").ljust(20))

    @property
    def grant(self) -> Medium:
        """What the model may do with it."""
        return Medium(self.name, self.sectors * (2048 if self.is_cd else 512), self.writable, window=0)


_NO_DRIVE: Final = Medium("", 0, window=0)


def ide_board(drives: Sequence[IdeDrive | None]) -> list[DeviceSpec]:
    """The IDE channels with these drives: the master and the slave of the first one, and of the second one.

    Without any drive there is none. With one there are both, as in every chip set: a guest may wait for the
    end of BSY, which ports without a channel show for ever.
    """
    if not any(drives):
        return []
    channels = []
    for number, (first, control, irq) in enumerate(layout.IDE_CHANNELS):
        pair = drives[2 * number : 2 * number + 2]
        channels.append(
            DeviceSpec(
                f"ide{number}",
                "ide",
                "ide",
                ports=(
                    AddressRange(first, layout.IDE_PORT_COUNT),
                    AddressRange(control, 1, offset=layout.IDE_PORT_COUNT),
                ),
                parameters={
                    name: drive.parameter
                    for name, drive in zip(("master", "slave"), pair, strict=True)
                    if drive is not None
                },
                grants=(Irq(irq), *(_NO_DRIVE if drive is None else drive.grant for drive in pair)),
                natural_sizes=frozenset({2, 4}),
                # The task file, up to the command, which exits.
                coalesced=tuple(range(first + 1, first + 7)),
                on_demand=True,
            )
        )
    return channels


def disk_map(disk: str) -> DeviceSpec:
    """The device that reads the map of the image behind `disk`, a resource of the host, which asks it."""
    return DeviceSpec(f"{disk}-map", "format", "qcow2", grants=(Output(disk),))


def _bios_devices(drives: Sequence[BootDrive]) -> list[DeviceSpec]:
    devices = [
        DeviceSpec(
            "BIOS-report",
            "debug",
            "bios_report",
            ports=(AddressRange(layout.BIOS_REPORT_PORT, layout.BIOS_REPORT_PORT_COUNT),),
            grants=(BiosReport(),),
            natural_sizes=frozenset({4}),
            on_demand=True,
        ),
        DeviceSpec(
            "BIOS-text",
            "debug",
            "debugcon",
            ports=(AddressRange(layout.BIOS_TEXT_PORT, 1),),
            grants=(Output(BIOS_TEXT),),
            coalesced=(layout.BIOS_TEXT_PORT,),
            on_demand=True,
        ),
    ]
    if drives:
        from kvmbox.devices.bios.boot_disk import pack_drives

        devices.append(
            DeviceSpec(
                BOOT_DISK,
                "bdisk",
                "boot_disk",
                ports=(AddressRange(layout.BOOT_DISK_PORT, layout.BOOT_DISK_PORT_COUNT),),
                parameters={"drives": pack_drives((one.sectors, one.writable) for one in drives)},
                grants=tuple(
                    Resource(
                        one.name,
                        one.sectors * layout.SECTOR_SIZE,
                        one.writable,
                        max_ranges=1,
                        max_pending=1,
                    )
                    for one in drives
                ),
                natural_sizes=frozenset({4}),
                on_demand=True,
            )
        )
    return devices


class DescriptorRings(Queues):
    """`Queues` that are the rings of an Intel 82540EM: the first one receives, the second one sends."""


VIRTIO_RNG: Final = "virtio-rng"
"""Name of the virtio entropy device."""

ENTROPY: Final = Medium("entropy", 1 << 62)
"""Random bytes of the host, as many as are read."""


def _virtio(
    name: str, device_type: str, model: str, parameters: Mapping[str, Parameter], *grants: Grant
) -> DeviceSpec:
    """A virtio device without its place: see `place_virtio`."""
    return DeviceSpec(
        name,
        device_type,
        model,
        parameters=parameters,
        grants=grants,
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


def virtio_blk(number: int, medium: Medium, *, serial: bytes = b"") -> DeviceSpec:
    """Virtio disk `number`, whose sectors are those of `medium`."""
    parameters: dict[str, Parameter] = {
        "sectors": medium.size // layout.SECTOR_SIZE,
        "read_only": int(not medium.writable),
        "serial": serial,
    }
    return _virtio(f"virtio-blk-{number}", "vblk", "virtio_blk", parameters, Queues(1), medium)


def vnc_server(source: bytes = b"") -> DeviceSpec:
    """What speaks with a client of --vnc: no device of the guest. `source` is the text of its model."""
    return DeviceSpec(VNC, VNC, "RfbServer", grants=(Output(VNC), Input(VNC)), source=source)


def virtio_rng() -> DeviceSpec:
    """The virtio entropy device."""
    return _virtio(VIRTIO_RNG, "vrng", "virtio_rng", {}, Queues(1), ENTROPY)


def virtio_console() -> DeviceSpec:
    """The virtio console."""
    streams = Output(VIRTIO_CONSOLE), Input(VIRTIO_CONSOLE)
    return _virtio(VIRTIO_CONSOLE, "vcon", "virtio_console", {}, Queues(2), *streams)


def virtio_net(number: int, mac: bytes) -> DeviceSpec:
    """Virtio network interface `number`, with this address. Its wire is the store of its name."""
    from kvmbox.devices.virtio.net import MOST_FRAME

    wire = Medium(f"net{number}", 1 << 62, writable=True, max_bytes=MOST_FRAME)
    return _virtio(
        f"virtio-net-{number}", "vnet", "virtio_net", {"mac": mac}, Queues(2), wire, Input(wire.name)
    )


def virtio_places(board: Sequence[DeviceSpec]) -> tuple[tuple[int, int], ...]:
    """(address, interrupt line) of each virtio device of a board."""
    return tuple((one.mmio[0].first, one.irqs[0]) for one in board if one.granted(Queues) and one.mmio)


def place_virtio(devices: Sequence[DeviceSpec], board: Sequence[DeviceSpec] = ()) -> list[DeviceSpec]:
    """Virtio devices at their addresses and on their lines, behind those that `board` has.

    Raises UsageError if there are too many.
    """
    first, most = len(virtio_places(board)), len(layout.VIRTIO_IRQS)
    if first + len(devices) > most:
        raise UsageError(
            f"{first + len(devices)} virtio devices, and there is room for {most}",
            hint="give fewer of --disk …,on=virtio, --net, --rng and --virtio-console",
        )
    return [
        DeviceSpec(
            **device.as_dict()
            | {
                "mmio": (AddressRange(layout.VIRTIO_BASE + number * layout.VIRTIO_SIZE, layout.VIRTIO_SIZE),),
                "grants": (Irq(layout.VIRTIO_IRQS[number]), *device.grants),
            }
        )
        for number, device in enumerate(devices, first)
    ]
