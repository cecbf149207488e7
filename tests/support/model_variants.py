"""Every model of the catalogue as a board has it, and with other parameters that make a difference."""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, Medium
from kvmbox.contract.names import SERIAL_PORTS
from kvmbox.devices.bios.board import BootDrive
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.pc_board import BoardOptions, whole_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.qcow2.board import disk_map
from kvmbox.devices.virtio import board as virtio_board
from kvmbox.devices.virtio.pci_functions import on_pci
from kvmbox.firmware.fw_cfg import FwCfgItem
from tests.support.ide_host import cd, disk

REQUEST_BLOCKS: Final = (
    (0x0020_000A, 5020, 0),
    (0x0023_000A, 70, 0x100),
    (0x0000_0008, 0, 0),
    (0x0024_000C, 65, 0),
    (2, 3, 0x100),
    (4, 1000, 0),
    (0x10, 1, 0),
    (0x10, 0, 0),
    (0, 9, 9),
    (2, 0xFFFF_FFFF, 0),
    (0x0019_000A, 1 << 26, 0x20),
    (0xFFFF_FFFF, 7, 1 << 63),
    (0x8003_000A, 40, 0x1001),
    (6, 8, (1 << 64) - 4),
)
"""What a device that reads guest memory finds there, at multiples of 16: control, length and address."""


def guest_memory(address: int, size: int) -> bytes | None:
    """The guest's memory: the same at any time. What is written to it is gone."""
    blocks = b"".join([struct.pack(">IIQ", *block) for block in REQUEST_BLOCKS])
    return blocks[address : address + size] if address + size <= len(blocks) else None


IDE: Final = DeviceSpec(
    *("ide0", "ide", "ide"),
    ports=(AddressRange(0x1F0, 8), AddressRange(0x3F6, 1, offset=8)),
    parameters={"master": disk(5000, b"1"), "slave": cd(70, b"2")},
    grants=(Irq(14), Medium("disk", 5000 * 512, writable=True, window=0), Medium("cd", 70 * 2048, window=0)),
    natural_sizes=frozenset({2, 4}),
)


def variants() -> dict[str, DeviceSpec]:
    """Each model as the board has it, and with the parameters that make it behave in another way."""
    found: dict[str, DeviceSpec] = {}
    for pace in (False, True):
        options = BoardOptions(
            *(SERIAL_PORTS, 1_700_000_000, layout.MIN_MEMORY),
            uart_pace=pace,
            testdev=True,
            has_bios=True,
            boot_drives=(BootDrive("disk", 64),),
            fw_cfg=(FwCfgItem(bytes(range(1, 252)) * 20, "opt/large"),),
        )
        for device in whole_board(options):
            name = device.model + (" paced" if device.parameters.get("pace_transmit") else "")
            found.setdefault(name, device)
    found["ide"] = IDE
    disk = Medium("disk", 5000 * layout.SECTOR_SIZE, writable=True)
    virtio = [virtio_board.virtio_blk(0, disk, serial=b"1"), virtio_board.virtio_rng()]
    virtio += [virtio_board.virtio_console(), virtio_board.virtio_net(0, bytes(6))]
    found["qcow2"] = disk_map("disk")
    functions = [on_pci(device) for device in virtio]
    functions.append(e1000_net(0, bytes(6)))
    found |= {device.model: device for device in with_pci(functions)}
    return found | {device.model: device for device in virtio_board.place_virtio(virtio)}


VARIANTS: Final = variants()
