"""The mode in which a guest is started that asks its boot loader for a frame buffer."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from kvmbox.board import VBE
from kvmbox.devices import vbe_dispi
from kvmbox.remote.patience import REPLY_SLICES
from kvmbox.run.text_memory import place_of

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode
    from kvmbox.run.run_devices import Devices


def set_mode(devices: Devices, mode: VideoMode) -> None:
    """Let the display interface show a mode, as a boot loader does. Raises DeviceProcessError."""
    channel, index = place_of(devices.pool, VBE)
    writes = (
        *((vbe_dispi.XRES, mode.width), (vbe_dispi.YRES, mode.height), (vbe_dispi.BPP, mode.depth)),
        (vbe_dispi.ENABLE, vbe_dispi.ENABLED | vbe_dispi.LINEAR),
    )
    data = b"".join(struct.pack("<HH", *write) for write in writes)
    channel.write_string(index, vbe_dispi.INDEX_PORT, 4, data, slices=REPLY_SLICES)
