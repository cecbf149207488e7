"""What the built-in BIOS needs on the board."""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import AddressRange, BiosReport, DeviceSpec, Output, Resource
from kvmbox.contract.names import BIOS_TEXT, BOOT_DISK


class BootDrive(Value):
    """A drive of the built-in BIOS. `name` says which resource of the host it is."""

    name: str
    sectors: int
    writable: bool = False


def bios_devices(drives: Sequence[BootDrive]) -> list[DeviceSpec]:
    """The ports of the built-in BIOS, and the disks that it reads and writes, if any."""
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
