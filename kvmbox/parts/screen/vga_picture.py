"""The graphics of a VGA as a picture: what its registers and planes make a monitor show.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem": CRT controller, attribute
controller, DAC.

A line of the picture is a line of the monitor, and a pixel is a dot, or half a dot where the dot clock is
halved. So mode 13h is 640 x 400, as with QEMU. A level of the DAC, 0 to 63, becomes four times as much, and 3
more if it is odd: again as QEMU has it.

Addresses. The CRT controller counts characters of 8 dots from `start` on, and `2 * OFFSET` of them from row
to row. In byte mode, a count is the address in each plane. In word mode it is rotated left by 1 bit, and in
doubleword mode by 2. Bits 0 and 1 of the mode control put the scan line within a row into address bits 13
and 14, as the modes of a CGA have it.

Not modelled: preset row scan, byte panning, counting by 2 and 4, skew, overscan.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.devices.vga import model as vga
from kvmbox.devices.vga.model import VgaText
from kvmbox.parts.screen.mode import lines_of
from kvmbox.parts.screen.picture import Picture

_UNDERLINE: Final = 0x14  # of the CRT controller
_MODE_CONTROL: Final = 0x17
_LINE_COMPARE: Final = 0x18
_DOUBLEWORD: Final = 1 << 6  # of UNDERLINE
_BYTES: Final = 1 << 6  # of MODE_CONTROL
_WRAP_15: Final = 1 << 5  # of MODE_CONTROL
_NO_ROW_13: Final = 1 << 0  # of MODE_CONTROL
_NO_ROW_14: Final = 1 << 1  # of MODE_CONTROL
_DOUBLE_SCAN: Final = 1 << 7  # of MAXIMUM_SCAN_LINE

_SHIFT_MODE: Final = 5  # of the graphics controller
_SHIFT_256: Final = 1 << 6
_SHIFT_PAIRS: Final = 1 << 5

_PLANE_ENABLE: Final = 0x12  # of the attribute controller
_PANNING: Final = 0x13
_COLOR_SELECT: Final = 0x14
_PALETTE_SIZE: Final = 1 << 7  # of MODE_CONTROL of the attribute controller
_PANNING_STOPS: Final = 1 << 5
_HALF_CLOCK: Final = 1 << 3  # of the clocking mode

_DOTS: Final = 8  # of a character
_ADDRESSES: Final = 0x1_0000
_SINGLES: Final = [bytes(value >> 7 - dot & 1 for dot in range(8)) for value in range(256)]
_PAIRS: Final = [bytes(value >> 6 - 2 * dot & 3 for dot in range(4)) for value in range(256)]
_WIDE: Final = bytes((level & 63) << 2 | (level & 1) * 3 for level in range(256))


def picture_of_vga(device: VgaText, planes: bytes) -> Picture | None:
    """The picture; None in text modes. `planes` has byte p of each address of plane p."""
    if not device.graphics[vga.MISCELLANEOUS] & vga.GRAPHICS_MODE:
        return None
    return _Drawing(device, planes).picture


class _Drawing:
    """One picture, drawn line by line."""

    def __init__(self, device: VgaText, planes: bytes) -> None:
        self._crtc, self._attribute = device.crtc, device.attribute
        self._planes = planes
        self._start = device.start
        self._columns = self._crtc[vga.HORIZONTAL_DISPLAY_END] + 1
        shift = device.graphics[_SHIFT_MODE]
        self._has_256 = bool(shift & _SHIFT_256)
        self._dots_of: Callable[[bytes], bytes] = (
            _dots_of_256 if self._has_256 else _dots_of_pairs if shift & _SHIFT_PAIRS else _dots_of_planes
        )
        self._is_wide = bool(device.sequencer[vga.CLOCKING] & _HALF_CLOCK) and not self._has_256
        self._colors = self._translations(device.palette)
        self._height = lines_of(self._crtc)
        width = self._columns * _DOTS * (2 if self._is_wide else 1)
        rgb = b"".join(self._lines()) if device.is_shown else bytes(3 * width * self._height)
        self.picture = Picture(width, self._height, rgb)

    def _lines(self) -> list[bytes]:
        """The lines of the picture: what is below the line of comparison begins at address 0."""
        scan = self._crtc[vga.MAXIMUM_SCAN_LINE]
        lines_per_scan, scans = (2 if scan & _DOUBLE_SCAN else 1), (scan & 0x1F) + 1
        split = (
            self._crtc[_LINE_COMPARE]
            | (self._crtc[vga.OVERFLOW] & vga.LINE_COMPARE_8) << 4
            | (scan & 1 << 6) << 3
        )
        panning = self._attribute[_PANNING]
        start, first = self._start, 0
        drawn: dict[tuple[int, int, int], bytes] = {}
        lines = []
        for line in range(self._height):
            if line == split + 1:
                start, first = 0, line
                if self._attribute[vga.MODE_CONTROL] & _PANNING_STOPS:
                    panning = 0
            row, position = divmod(line - first, lines_per_scan * scans)
            key = start + row * 2 * self._crtc[vga.OFFSET], position // lines_per_scan & 3, panning
            if key not in drawn:
                drawn[key] = self._line(*key)
            lines.append(drawn[key])
        return lines

    def _line(self, count: int, scan: int, panning: int) -> bytes:
        words = b"".join(
            self._planes[4 * place : 4 * place + 4]
            for place in (
                self._address((count + column) % _ADDRESSES, scan) for column in range(self._columns + 1)
            )
        )
        skipped = (panning >> 1 & 3) * 2 if self._has_256 else panning & 7
        dots = self._dots_of(words)[skipped : skipped + self._columns * _DOTS]
        dots = _doubled(dots) if self._is_wide else dots
        pixels = bytearray(3 * len(dots))
        for color, table in enumerate(self._colors):
            pixels[color::3] = dots.translate(table)
        return bytes(pixels)

    def _address(self, count: int, scan: int) -> int:
        """The address in each plane of a count of the CRT controller, in this scan line of a row."""
        control = self._crtc[_MODE_CONTROL]
        if self._crtc[_UNDERLINE] & _DOUBLEWORD:
            count = count << 2 & 0xFFFC | count >> 14 & 3
        elif not control & _BYTES:
            count = count << 1 & 0xFFFE | count >> (15 if control & _WRAP_15 else 13) & 1
        if not control & _NO_ROW_13:
            count = count & ~(1 << 13) | (scan & 1) << 13
        if not control & _NO_ROW_14:
            count = count & ~(1 << 14) | (scan >> 1 & 1) << 14
        return count

    def _translations(self, palette: bytes) -> list[bytes]:
        """For red, green and blue: the level of each value of a dot, 0 to 255."""
        levels = palette.translate(_WIDE)
        entries = list(range(256)) if self._has_256 else [self._entry(index & 0x0F) for index in range(256)]
        return [bytes(levels[3 * entry + color] for entry in entries) for color in range(3)]

    def _entry(self, index: int) -> int:
        """Which colour of the DAC one of 16 is."""
        value = self._attribute[index & self._attribute[_PLANE_ENABLE]]
        select = self._attribute[_COLOR_SELECT]
        if self._attribute[vga.MODE_CONTROL] & _PALETTE_SIZE:
            return (select & 0x0F) << 4 | value & 0x0F
        return (select & 0x0C) << 4 | value & 0x3F


def _doubled(dots: bytes) -> bytes:
    wide = bytearray(2 * len(dots))
    wide[0::2] = wide[1::2] = dots
    return bytes(wide)


def _dots_of_256(words: bytes) -> bytes:
    """Each byte is a pixel of two dots."""
    return _doubled(words)


def _dots_of_planes(words: bytes) -> bytes:
    """Each plane has a bit of each dot, bit 7 first."""
    value = 0
    for plane in range(4):
        spread = b"".join([_SINGLES[byte] for byte in words[plane::4]])
        value |= int.from_bytes(spread, "little") << plane
    return value.to_bytes(2 * len(words), "little")


def _dots_of_pairs(words: bytes) -> bytes:
    """The even planes have two bits each of the first four dots, the odd planes those of the next four."""
    low = b"".join([_PAIRS[words[at]] + _PAIRS[words[at + 1]] for at in range(0, len(words), 4)])
    high = b"".join([_PAIRS[words[at + 2]] + _PAIRS[words[at + 3]] for at in range(0, len(words), 4)])
    value = int.from_bytes(low, "little") | int.from_bytes(high, "little") << 2
    return value.to_bytes(2 * len(words), "little")
