"""The video mode of a Linux kernel: `vga=` of its command line, and the frame buffer in `screen_info`.

Documentation/arch/x86/boot.rst, "Special Command Line Options"; <linux/screen_info.h>. A boot loader obeys
`vga=`: where the setup code does not run, nobody else would.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.firmware.video_modes import MODES, VideoMode

_OPTION: Final = re.compile(r"(?:^|\s)vga=(\S+)")
_WORDS: Final = {"normal": 0xFFFF, "ext": 0xFFFE, "ask": 0xFFFD}
_VESA: Final = 0x200  # the first mode of VBE, which is this more than its number
_BEHIND_VESA: Final = 0x900

# screen_info
_IS_VGA: Final = 0x0F
_LINEAR: Final = 0x12  # width, height, depth, address, size in 64 KiB
_LINEAR_FIELDS: Final = struct.Struct("<HHHII")
_PITCH: Final = 0x24  # and size and position of red, green and blue
_VIDEO_TYPE_VLFB: Final = 0x23


def vid_mode(command_line: str) -> int | None:
    """What the last `vga=` says, as `vid_mode` of the setup header has it; None without one.

    Raises UsageError.
    """
    found = _OPTION.findall(command_line)
    if not found:
        return None
    text = found[-1]
    try:
        number = _WORDS[text] if text in _WORDS else int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= 0xFFFF:
        raise UsageError(
            f"vga={text} is no video mode", hint="give a number, as vga=0x317 for 1024 x 768, or vga=normal"
        )
    return number


def linear_mode(command_line: str) -> VideoMode | None:
    """The mode of the frame buffer that `vga=` asks for; None for text. Raises UsageError."""
    number = vid_mode(command_line)
    if number is None or not _VESA <= number < _BEHIND_VESA:
        return None
    mode = MODES.get(number - _VESA)
    if mode is None:
        raise UsageError(
            f"vga={number:#x} is no mode of the frame buffer",
            hint="docs/booting.md lists the modes: vga=0x317 is 1024 x 768 with 16 bits",
        )
    return mode


def put_screen(page: bytearray, mode: VideoMode) -> None:
    """Write the mode to `screen_info`, at the beginning of the boot parameters."""
    page[_IS_VGA] = _VIDEO_TYPE_VLFB
    units = layout.FRAME_BUFFER_SIZE // (64 * layout.KIB)
    _LINEAR_FIELDS.pack_into(page, _LINEAR, mode.width, mode.height, mode.depth, layout.FRAME_BUFFER, units)
    colors = [number for field in mode.fields for number in (field.size, field.position)]
    struct.pack_into("<H6B", page, _PITCH, mode.pitch, *colors)
