"""The disks and the VGA that a taken-over process of theirs has, as a run has them."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import DeviceSpec, Medium
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.virtio.board import place_virtio, virtio_blk


def ide_disks(size: int) -> list[DeviceSpec]:
    """IDE channels with two disks of so many bytes: a writable one, and one that is not."""
    sectors = size // layout.SECTOR_SIZE
    drives = [IdeDrive("disk0", sectors, writable=True), IdeDrive("disk1", sectors)]
    return ide_board([*drives, None, None])


def virtio_disks(size: int) -> list[DeviceSpec]:
    """Two disks of so many bytes: one that is not writable, and a writable one."""
    media = [Medium("disk0", size), Medium("disk1", size, writable=True)]
    return place_virtio([virtio_blk(number, medium) for number, medium in enumerate(media)])


def vga_devices(device_type: str) -> list[DeviceSpec]:
    """The devices of the process of the VGA."""
    board = pc_board(BoardOptions((), 0, layout.MIB))
    return [device for device in board if device.device_type == device_type]
