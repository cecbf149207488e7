"""What a picture is made of: devices and memory of a guest that stands still, or goes on."""

from __future__ import annotations

from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.devices.vga.dispi import VbeDispi
from kvmbox.devices.vga.model import VgaText


class Look(Value):
    """What there is to look at. A device is None if its process has not started: it is as at power-on."""

    memory: GuestMemory
    vga: VgaText | None
    dispi: VbeDispi | None = None
