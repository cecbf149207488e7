"""The BIOS data area at 0x400 and the extended one at 0x9FC00, as a BIOS leaves them before it boots.

Kernels read the size of conventional memory, the place of the EBDA and the COM ports there. The fields are
those of IBM's Personal System/2 and Personal Computer BIOS Interface Technical Reference, section "BIOS Data
Area"; all others are zero.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.firmware.platform import Platform

# Offsets within the BIOS data area.
COM_BASES: Final = 0x00  # four words
EBDA_SEGMENT: Final = 0x0E
EQUIPMENT: Final = 0x10
BASE_MEMORY: Final = 0x13  # KiB below the EBDA
KEYBOARD_HEAD: Final = 0x1A
KEYBOARD_TAIL: Final = 0x1C
VIDEO_MODE: Final = 0x49
COLUMNS: Final = 0x4A
PAGE_SIZE: Final = 0x4C  # bytes of one page of text
CURSOR_SHAPE: Final = 0x60
CRTC_PORT: Final = 0x63
DISK_COUNT: Final = 0x75
COM_TIMEOUTS: Final = 0x7C  # four bytes, in seconds or so
KEYBOARD_START: Final = 0x80
KEYBOARD_END: Final = 0x82
LAST_ROW: Final = 0x84
CHARACTER_HEIGHT: Final = 0x85
KEYBOARD_KIND: Final = 0x96

EQUIPMENT_FPU: Final = 1 << 1
EQUIPMENT_COLOUR_80: Final = 0b10 << 4
EQUIPMENT_SERIAL_SHIFT: Final = 9

_KEYBOARD_BUFFER: Final = 0x1E
_KEYBOARD_BUFFER_END: Final = 0x3E
_TEXT_MODE: Final = 3  # 80 columns, 25 rows, colour: text memory at 0xB8000
_ENHANCED_KEYBOARD: Final = 0x10


def bios_data_area(platform: Platform) -> bytes:
    """The 256 bytes at BIOS_DATA_AREA.

    COM ports are listed without gaps, in their order, as a BIOS lists what it finds. There are no disks.
    """
    ports = [port for name, port in layout.COM_PORTS.items() if name in platform.serial_ports]
    equipment = EQUIPMENT_FPU | EQUIPMENT_COLOUR_80 | len(ports) << EQUIPMENT_SERIAL_SHIFT
    area = bytearray(layout.BIOS_DATA_AREA_SIZE)
    for number, port in enumerate(ports):
        struct.pack_into("<H", area, COM_BASES + 2 * number, port)
        area[COM_TIMEOUTS + number] = 10
    for offset, word in (
        (EBDA_SEGMENT, layout.EBDA >> 4),
        (EQUIPMENT, equipment),
        (BASE_MEMORY, layout.EBDA // layout.KIB),
        (KEYBOARD_HEAD, _KEYBOARD_BUFFER),
        (KEYBOARD_TAIL, _KEYBOARD_BUFFER),
        (COLUMNS, 80),
        (PAGE_SIZE, 0x1000),
        (CURSOR_SHAPE, 0x0607),
        (CRTC_PORT, 0x3D4),
        (KEYBOARD_START, _KEYBOARD_BUFFER),
        (KEYBOARD_END, _KEYBOARD_BUFFER_END),
        (CHARACTER_HEIGHT, 16),
    ):
        struct.pack_into("<H", area, offset, word)
    for offset, byte in (
        (VIDEO_MODE, _TEXT_MODE),
        (DISK_COUNT, 0),
        (LAST_ROW, 24),
        (KEYBOARD_KIND, _ENHANCED_KEYBOARD),
    ):
        area[offset] = byte
    return bytes(area)


def extended_bios_data_area() -> bytes:
    """What is written at EBDA: its size in KiB, and zeros."""
    size = layout.LOW_MEMORY_END - layout.EBDA
    return (size // layout.KIB).to_bytes(1, "little").ljust(size, b"\0")
