"""Pictures by sixels, the graphics of a VT340: xterm -ti vt340, foot, mlterm and others have them.

Source: VT330/VT340 Programmer Reference Manual, volume 2, chapter 14. A band has 6 rows. For each of its
colours, a character says which of 6 pixels below each other have it: 63 + bits, the upper one lowest. `$`
goes back to the begin of the band, `-` to the next one. A colour has a number, and levels in per cent.

At most 256 colours have numbers. A picture with more of them loses the lower bits: each level becomes one of
6. A screen changes little from picture to picture, so numbers, rows and bands are kept for the next one.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, Final

from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.pixels import Pixels

COLORS: Final = 256
BAND: Final = 6
_BLANK: Final = b"?"
_CUBE: Final = bytes((level * 5 + 127) // 255 * 51 for level in range(256))
_RUN: Final = re.compile(rb"(.)\1{3,}")
_ROWS: Final = 16
"""How many rows are a piece of the work."""


class Sixel(Pixels):
    """See `Pixels`."""

    def __init__(self, *arguments: Any) -> None:
        """See `Pixels`."""
        super().__init__(*arguments)
        self._shape = 0, 0
        self._is_coarse = False
        self._forget()

    def _forget(self) -> None:
        self._numbers: dict[int, int] = {}  # of colours: red lowest, then green, then blue
        self._rows: dict[bytes, bytes] = {}  # numbers of pixels, by their levels
        self._bands: dict[tuple[bytes, ...], bytes] = {}  # sixels, by rows of numbers

    def encode(self, picture: Picture) -> Iterator[bytes]:
        """See `Pixels`."""
        if (shape := (picture.width, picture.height)) != self._shape:
            self._shape, self._is_coarse = shape, False
            self._forget()
        is_fresh = not self._numbers
        while (rows := (yield from self._numbered(picture))) is None:
            self._is_coarse |= is_fresh
            self._forget()
            is_fresh = True
        yield b'\x1bP0;1q"1;1;%d;%d' % shape
        for color, number in self._numbers.items():
            levels = color.to_bytes(3, "little")
            yield b"#%d;2;%d;%d;%d" % (number, *((level * 100 + 127) // 255 for level in levels))
        bands: dict[tuple[bytes, ...], bytes] = {}
        for y in range(0, picture.height, BAND):
            band = tuple(rows[y : y + BAND])
            if band not in bands:
                bands[band] = self._bands.get(band) or _sixels(band)
            yield (b"-" if y else b"") + bands[band]
        self._bands = bands
        yield b"\x1b\\"

    def _numbered(self, picture: Picture) -> Generator[bytes, None, list[bytes] | None]:
        """The rows of the picture, a number for each pixel; None if there are too many colours."""
        line = 3 * picture.width
        rgb = picture.rgb.translate(_CUBE) if self._is_coarse else picture.rgb
        rows: list[bytes] = []
        known: dict[bytes, bytes] = {}
        for y in range(picture.height):
            row = rgb[line * y : line * (y + 1)]
            numbers = known.get(row) or self._rows.get(row) or self._number(row)
            if numbers is None:
                return None
            known[row] = numbers
            rows.append(numbers)
            if y % _ROWS == 0:
                yield b""
        self._rows = known
        return rows

    def _number(self, row: bytes) -> bytes | None:
        words = bytearray(len(row) // 3 * 4)
        for color in range(3):
            words[color::4] = row[color::3]
        pixels = memoryview(words).cast("I")
        new = set(pixels) - self._numbers.keys()
        if len(self._numbers) + len(new) > COLORS:
            return None
        for color in new:
            self._numbers[color] = len(self._numbers)
        return bytes(map(self._numbers.__getitem__, pixels))


def _sixels(band: tuple[bytes, ...]) -> bytes:
    width = len(band[0])
    joined = b"".join(band)
    blank = int.from_bytes(_BLANK * width, "little")
    colors = []
    for number in set(joined):
        is_it = joined.translate(bytes(number) + b"\1" + bytes(COLORS - 1 - number))
        sixels = blank
        for row in range(len(band)):
            sixels += int.from_bytes(is_it[width * row : width * (row + 1)], "little") << row
        line = sixels.to_bytes(width, "little").rstrip(_BLANK)
        colors.append(b"#%d" % number + _RUN.sub(_repeated, line))
    return b"$".join(colors)


def _repeated(run: re.Match[bytes]) -> bytes:
    return b"!%d%c" % (len(run[0]), run[0][0])
