"""A ROM with the header of the built-in BIOS, and nothing else in it: see guests/bios/entry.S."""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.firmware.builtin_bios import ROM_SIZE

STUBS: Final = 0x9000
STUB_SIZE: Final = 6
PARAMETERS: Final = 0x100  # in the ROM
HANDLERS: Final = 0x80
_START: Final = layout.BIOS_ROM & 0xFFFF
TIMER: Final = 0xB123
PRINT_SCREEN: Final = 0xB456


def make_rom(version: int = 3) -> bytes:
    """Its vectors 8 and 5 lead elsewhere than to their stubs."""
    header = struct.pack(
        "<12s5H", b"kvmbox BIOS\0", version, STUBS, STUB_SIZE, _START + PARAMETERS, _START + HANDLERS
    )
    handlers = struct.pack("<5H", 8, TIMER, 5, PRINT_SCREEN, 0xFFFF)
    return (header.ljust(HANDLERS, b"\xff") + handlers).ljust(ROM_SIZE, b"\xff")
