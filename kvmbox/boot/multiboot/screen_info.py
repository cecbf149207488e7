"""What Multiboot kernels are told of the screen: fields that both versions share, and blocks of VBE.

Multiboot Specification 0.6.96, section 3.3; Multiboot2 Specification 2.0, sections 3.6.11 and 3.6.12. Both
fields are in the same order.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.boot.boot_area import InfoWriter
from kvmbox.firmware.video_modes import VideoMode, control_block, mode_block, number_of, palette

_FIELDS: Final = struct.Struct("<QIIIBB")  # address, bytes a line, columns, lines, bits a dot, type
_INDEXED: Final = 0
_DIRECT: Final = 1
_EGA_TEXT: Final = 2

_INFO_VBE: Final = 1 << 11
_INFO_FRAMEBUFFER: Final = 1 << 12

_GAP: Final = bytes(2)
"""Before the colours: Multiboot 1 has none, but its multiboot.h has, and so have GRUB and kernels."""

_VBE: Final = struct.Struct("<IIHHHH")  # control block, mode block, mode, protected mode interface
_LINEAR: Final = 1 << 14  # of a mode that is set
_LIST_END: Final = 0xFFFF


def fields(mode: VideoMode) -> bytes:
    """Where the frame buffer is, and its size."""
    kind = _INDEXED if mode.depth == 8 else _DIRECT
    return _FIELDS.pack(layout.FRAME_BUFFER, mode.pitch, mode.width, mode.height, mode.depth, kind)


def color_fields(mode: VideoMode) -> bytes:
    """Where red, green and blue are in a dot."""
    return bytes(number for field in mode.fields for number in (field.position, field.size))


def palette_of(mode: VideoMode) -> bytes:
    """The colours that dots name, 3 bytes each; none where dots have colours of their own."""
    return palette() if mode.depth == 8 else b""


def text_screen(_writer: InfoWriter) -> tuple[int, bytes]:
    """Flags and fields of Multiboot 1, from `vbe_control_info` on, for a kernel that asks for text."""
    return _INFO_FRAMEBUFFER, bytes(_VBE.size) + _FIELDS.pack(layout.TEXT_SCREEN, 160, 80, 25, 16, _EGA_TEXT)


def linear_screen(mode: VideoMode, writer: InfoWriter) -> tuple[int, bytes]:
    """The same for a linear mode. What the fields point to is added to the information."""
    number = number_of(mode)
    modes = writer.add(struct.pack("<2H", number, _LIST_END), 2)
    name = writer.add_string(b"kvmbox")
    control = writer.add(control_block(_far(name), _far(modes)), 16)
    block = writer.add(mode_block(mode), 16)
    colors = color_fields(mode)
    table = palette_of(mode)
    if table:
        colors = struct.pack("<IH", writer.add(table), len(table) // 3)
    vbe = _VBE.pack(control, block, number | _LINEAR, 0, 0, 0)
    return _INFO_VBE | _INFO_FRAMEBUFFER, vbe + fields(mode) + _GAP + colors


def multiboot2_content(mode: VideoMode) -> tuple[bytes, bytes]:
    """The contents of the tags of VBE (7) and of the frame buffer (8)."""
    # A name and a list that pointers lead to are not there: nothing of the tag has an address of its own.
    vbe = struct.pack("<4H", number_of(mode) | _LINEAR, 0, 0, 0) + control_block(0, 0) + mode_block(mode)
    table = palette_of(mode)
    colors = struct.pack("<H", len(table) // 3) + table if table else color_fields(mode)
    return vbe, fields(mode) + _GAP + colors


def _far(address: int) -> int:
    """A far pointer to an address in conventional memory."""
    return address >> 4 << 16 | address & 0xF
