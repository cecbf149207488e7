"""The picture that guests draw to prove a frame buffer (guests/common/picture.c), computed for itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_PATTERN: Final = (96, 48)
_CORNER: Final = 16

Color = tuple[int, int, int]


def guest_picture(width: int, height: int, depth: int) -> bytes:
    """Red, green and blue of each pixel, as a monitor shows them."""
    rgb = bytearray(bytes(_shown(depth, (0, 0, 0))) * width * height)
    for x, y, color in _dots(width - 1, height - 1):
        at = 3 * (y * width + x)
        rgb[at : at + 3] = bytes(_shown(depth, color))
    return bytes(rgb)


def _dots(right: int, bottom: int) -> Iterator[tuple[int, int, Color]]:
    """What is drawn, in order: columns go up to `right`, and rows to `bottom`."""
    columns, rows = _PATTERN
    for y in range(rows):
        for x in range(columns):
            yield x, y, (x * 255 // columns, y * 255 // rows, (x ^ y) * 2)
    for x in range(right + 1):
        yield x, 0, (255, x & 255, 0)
        yield x, bottom, (0, x & 255, 255)
    for y in range(bottom + 1):
        yield 0, y, (0, 255, y & 255)
        yield right, y, (y & 255, 255, 0)
    for y in range(bottom - _CORNER, bottom):
        for x in range(right - _CORNER, right):
            yield x, y, (200, 100, 50)


def _shown(depth: int, color: Color) -> Color:
    red, green, blue = color
    if depth == 8:
        index = sum(color) & 255
        return _dac(index >> 2), _dac(63 - (index >> 2)), _dac(index * 2 & 63)
    if depth > 16:
        return color
    return _cut(red, 5), _cut(green, depth - 10), _cut(blue, 5)


def _cut(level: int, bits: int) -> int:
    """A level that is stored in so many bits: what is missing repeats the upper ones."""
    kept = level >> 8 - bits << 8 - bits
    return kept | kept >> bits


def _dac(level: int) -> int:
    return level << 2 | (level & 1) * 3
