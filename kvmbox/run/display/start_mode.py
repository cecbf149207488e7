"""The mode in which a guest is started that asks its boot loader for a frame buffer."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kvmbox.contract.names import VBE
from kvmbox.devices.vga import dispi
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.run.display.text_memory import place_of

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode
    from kvmbox.run.machine.device_set import Devices


def set_mode(devices: Devices, mode: VideoMode) -> None:
    """Let the display interface show a mode, as a boot loader does. Raises DeviceProcessError."""
    channel, index = place_of(devices.pool, VBE)
    writes = (
        *((dispi.XRES, mode.width), (dispi.YRES, mode.height), (dispi.BPP, mode.depth)),
        (dispi.ENABLE, dispi.ENABLED | dispi.LINEAR),
    )
    data = b"".join(struct.pack("<HH", *write) for write in writes)
    channel.write_string(index, dispi.INDEX_PORT, 4, data, slices=REPLY_SLICES)
