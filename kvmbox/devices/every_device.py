"""A board with every device type but those that --testdev and the built-in BIOS bring: for commands. Pure."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import DeviceSpec, Medium
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.rfb.board import vnc_server
from kvmbox.devices.virtio import board as virtio


def board_of_every_device() -> list[DeviceSpec]:
    """One device of each type at least, but for those that --testdev and the built-in BIOS bring."""
    board = pc_board(BoardOptions(SERIAL_PORTS, rtc_base=0, memory_size=layout.MIN_MEMORY))
    disk, cd = IdeDrive("disk0", 1), IdeDrive("cd0", 1, is_cd=True)
    board += ide_board([disk, None, cd, None])
    board += [disk_map("disk0"), vnc_server()]
    virtio_disk = virtio.virtio_blk(0, Medium("disk1", layout.SECTOR_SIZE))
    board += virtio.place_virtio([virtio_disk, virtio.virtio_rng(), virtio.virtio_console()])
    board += virtio.place_virtio([virtio.virtio_net(0, bytes(6))], board)
    return with_pci([*board, e1000_net(0, bytes(6))])
