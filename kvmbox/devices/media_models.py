"""The models that move bulk data: disks, networks and virtio."""

from __future__ import annotations

from kvmbox.devices.ide_channel import IdeChannel
from kvmbox.devices.qcow2 import Qcow2
from kvmbox.devices.virtio_blk import VirtioBlk
from kvmbox.devices.virtio_console import VirtioConsole
from kvmbox.devices.virtio_net import VirtioNet
from kvmbox.devices.virtio_pci import VirtioBlkPci, VirtioConsolePci, VirtioNetPci, VirtioRngPci
from kvmbox.devices.virtio_rng import VirtioRng

__all__ = [
    "IdeChannel",
    "Qcow2",
    "VirtioBlk",
    "VirtioBlkPci",
    "VirtioConsole",
    "VirtioConsolePci",
    "VirtioNet",
    "VirtioNetPci",
    "VirtioRng",
    "VirtioRngPci",
]
