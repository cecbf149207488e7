"""Linear modes of the frame buffer: which there are, and the blocks in which VBE describes them. Pure.

Sources: VESA BIOS Extension (VBE) Core Functions 3.0, functions 00h and 01h. No standard has the numbers
beyond 11Bh: they are those of the BIOSes of emulators. guests/bios/vbe.c has the same table.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value


class Field(Value):
    """Where a colour is in a dot: `size` bits from bit `position` on."""

    position: int
    size: int


_FIELDS: Final = {
    8: (Field(0, 0), Field(0, 0), Field(0, 0)),
    15: (Field(10, 5), Field(5, 5), Field(0, 5)),
    16: (Field(11, 5), Field(5, 6), Field(0, 5)),
    24: (Field(16, 8), Field(8, 8), Field(0, 8)),
    32: (Field(16, 8), Field(8, 8), Field(0, 8)),
}
_STORED: Final = {8: 8, 15: 16, 16: 16, 24: 24, 32: 32}
_WIDTH_STEP: Final = 8


class VideoMode(Value):
    """`width` columns, a multiple of 8, `height` rows, and 8, 15, 16, 24 or 32 bits a dot: `depth`."""

    width: int
    height: int
    depth: int

    @property
    def pitch(self) -> int:
        """Bytes of a line."""
        return self.width * self.stored_bits // 8

    @property
    def stored_bits(self) -> int:
        """Bits of a dot as it is stored: 16 of 15."""
        return _STORED[self.depth]

    @property
    def fields(self) -> tuple[Field, Field, Field]:
        """Red, green and blue; of no bits where dots name colours of a palette."""
        return _FIELDS[self.depth]

    def __str__(self) -> str:
        return f"{self.width} x {self.height}, {self.depth} bits"


USUAL: Final = VideoMode(1024, 768, 32)
"""The mode of who asks for no other one."""


def nearest(width: int, height: int, depth: int) -> VideoMode:
    """The mode for who asks for this one; 0 is no preference. What has no room becomes the usual one.

    >>> str(nearest(1366, 768, 0))
    '1360 x 768, 32 bits'
    """
    depth = depth if depth in _STORED else USUAL.depth
    mode = VideoMode(width & -_WIDTH_STEP, height, depth)
    if 0 < mode.pitch * mode.height <= layout.FRAME_BUFFER_SIZE and max(width, height) <= _MOST:
        return mode
    return VideoMode(USUAL.width, USUAL.height, depth)


_MOST: Final = 12000  # columns or rows of the display interface

# First number, size, and the depths of the numbers from there on.
_GROUPS: Final = (
    (0x100, (640, 400), (8,)),
    (0x101, (640, 480), (8,)),
    (0x103, (800, 600), (8,)),
    (0x105, (1024, 768), (8,)),
    (0x107, (1280, 1024), (8,)),
    (0x10D, (320, 200), (15, 16, 24)),
    (0x110, (640, 480), (15, 16, 24)),
    (0x113, (800, 600), (15, 16, 24)),
    (0x116, (1024, 768), (15, 16, 24)),
    (0x119, (1280, 1024), (15, 16, 24)),
    (0x11C, (1600, 1200), (8, 15, 16, 24)),
    (0x140, (320, 200), (32,)),
    (0x141, (640, 400), (32,)),
    (0x142, (640, 480), (32,)),
    (0x143, (800, 600), (32,)),
    (0x144, (1024, 768), (32,)),
    (0x145, (1280, 1024), (32,)),
    (0x146, (320, 200), (8,)),
    (0x147, (1600, 1200), (32,)),
    (0x148, (1152, 864), (8, 15, 16, 24, 32)),
    (0x175, (1280, 768), (16, 24, 32)),
    (0x178, (1280, 800), (16, 24, 32)),
    (0x17B, (1280, 960), (16, 24, 32)),
    (0x17E, (1440, 900), (16, 24, 32)),
    (0x181, (1400, 1050), (16, 24, 32)),
    (0x184, (1680, 1050), (16, 24, 32)),
    (0x187, (1920, 1200), (16, 24, 32)),
    (0x18A, (2560, 1600), (16, 24, 32)),
    (0x18D, (1280, 720), (16, 24, 32)),
    (0x190, (1920, 1080), (16, 24, 32)),
)

MODES: Final = {
    number: VideoMode(*size, depth)
    for first, size, depths in _GROUPS
    for number, depth in enumerate(depths, first)
}
"""The modes of VBE by their number."""

_NUMBERS: Final = {mode: number for number, mode in MODES.items()}
_UNNUMBERED: Final = 0x1FF


def number_of(mode: VideoMode) -> int:
    """The number of a mode, or one that is no mode's."""
    return _NUMBERS.get(mode, _UNNUMBERED)


_CONTROL: Final = Struct("<4sHIIIHHIII")
_VERSION: Final = 0x0300
_DAC_SWITCHES: Final = 1 << 0
CONTROL_SIZE: Final = 512

_MODE: Final = Struct("<H2B4HI3H9B8BB2IHHBB8BI")
_ATTRIBUTES: Final = 0xBB  # supported, extended, colour, graphics, no VGA mode, linear
_WINDOW: Final = 7  # there, readable, writable
_PACKED, _DIRECT = 4, 6
MODE_SIZE: Final = 256


def control_block(texts: int, modes: int) -> bytes:
    """The answer of function 00h. `texts` and `modes` are far pointers to a name and to a list of modes."""
    banks = layout.FRAME_BUFFER_SIZE // layout.VIDEO_WINDOW_SIZE
    head = _CONTROL.pack(b"VESA", _VERSION, texts, _DAC_SWITCHES, modes, banks, 0, texts, texts, texts)
    return head.ljust(CONTROL_SIZE, b"\0")


def mode_block(mode: VideoMode) -> bytes:
    """The answer of function 01h."""
    kib = layout.VIDEO_WINDOW_SIZE // layout.KIB
    pages = layout.FRAME_BUFFER_SIZE // (mode.pitch * mode.height) - 1
    pages = min(pages, 0xFF)
    masks = [number for field in mode.fields for number in (field.size, field.position)]
    masks += [8, 24] if mode.depth == 32 else [1, 15] if mode.depth == 15 else [0, 0]
    return _MODE.pack(
        *(_ATTRIBUTES, _WINDOW, 0, kib, kib, layout.VGA_MEMORY >> 4, 0, 0),
        *(mode.pitch, mode.width, mode.height, 8, 16, 1, mode.depth, 1),
        *(_PACKED if mode.depth == 8 else _DIRECT, 0, pages, 1),
        *masks,
        *(0, layout.FRAME_BUFFER, 0, 0),
        *(mode.pitch, pages, pages),
        *masks,
        0,
    ).ljust(MODE_SIZE, b"\0")


def palette() -> bytes:
    """Red, green and blue, 8 bits each, of the colours that a DAC has at power-on: the 64 of an EGA."""
    levels = [
        42 * (color >> plane & 1) + 21 * (color >> plane + 3 & 1)
        for color in range(64)
        for plane in (2, 1, 0)
    ]
    return bytes(level << 2 | (level & 1) * 3 for level in levels)
