"""The reader of an image's map on the board: a device that no guest sees."""

from __future__ import annotations

from kvmbox.contract.device_spec import DeviceSpec, Output


def disk_map(disk: str) -> DeviceSpec:
    """The device that reads the map of the image behind `disk`, a resource of the host, which asks it."""
    return DeviceSpec(f"{disk}-map", "format", "qcow2", grants=(Output(disk),))
