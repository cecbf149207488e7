"""A picture in a terminal: blocks of colour, two pixels in each character.

A character is an upper half block, U+2580, whose colour is that of the upper pixel, on a background with that
of the lower one. Colours have 24 bits (ISO/IEC 8613-6: SGR 38;2 and 48;2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmbox.parts.screen.picture import Picture


MOST_BLOCKS: Final = 12_000
"""Characters of a picture. One has 39 bytes at most: it is half of what waits until the guest does."""


def rows_of(picture: Picture, columns: int, lines: int) -> list[str]:
    """The picture in so many rows of so many characters at most, with its proportions."""
    width = max(1, min(columns, picture.width, picture.width * 2 * lines // picture.height))
    height = max(1, min(2 * lines, picture.height, picture.height * width // picture.width))
    while width * height > 2 * MOST_BLOCKS:
        width, height = width * 9 // 10, height * 9 // 10
    xs = [3 * (column * picture.width // width) for column in range(width)]
    rows = []
    for row in range(0, height, 2):
        above = _line(picture, row * picture.height // height)
        below = _line(picture, min(row + 1, height - 1) * picture.height // height)
        text, colors = [], b""
        for x in xs:
            pair = above[x : x + 3] + below[x : x + 3]
            if pair != colors:
                colors = pair
                upper, lower = (";".join(map(str, half)) for half in (pair[:3], pair[3:]))
                text.append(f"\x1b[38;2;{upper};48;2;{lower}m")
            text.append("\u2580")
        rows.append("".join(text) + "\x1b[0m")
    return rows


def _line(picture: Picture, y: int) -> bytes:
    start = 3 * picture.width * y
    return picture.rgb[start : start + 3 * picture.width]
