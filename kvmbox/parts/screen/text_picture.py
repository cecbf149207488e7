"""A screen as a picture: PNG, by Pillow, with the font Source Code Pro (both are of the extra `screen`).

The font is an outline of all characters of code page 437. A cell of 9 x 16 dots has twice as many pixels each
way. Characters of another height are stretched to their cell. What blinks is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import UsageError
from kvmbox.parts.screen.glyphs import GLYPHS
from kvmbox.parts.screen.picture import Picture

if TYPE_CHECKING:
    from PIL.Image import Image

    from kvmbox.parts.screen.mode import Color, TextMode

SCALE: Final = 2
CELL_WIDTH: Final = 9 * SCALE
CELL_HEIGHT: Final = 16 * SCALE
FONT_SIZE: Final = 30
"""At which a character of the font is as wide as a cell, 0.6 of the size."""
BASELINE: Final = 24
"""Pixels from the top of a cell: what is below the line has room, and lines of boxes meet."""
WEIGHT: Final = 500


class Glyphs:
    """The characters as masks of the size of a cell, drawn when they are needed."""

    def __init__(self, height: int) -> None:
        """`height` is that of a cell, in pixels. Raises UsageError."""
        try:
            import fontpkg
            from PIL import Image, ImageDraw, ImageFont

            self._font = ImageFont.truetype(str(fontpkg.path("Source Code Pro")), FONT_SIZE)
            self._font.set_variation_by_axes([WEIGHT])
        except (ImportError, OSError) as error:
            raise UsageError(
                f"a picture of the screen needs Pillow and a font: {error}",
                hint="pip install 'kvmbox[screen]'",
            ) from error
        self._image, self._draw = Image, ImageDraw
        self._height = height
        self._masks: dict[int, Image.Image] = {}

    def __getitem__(self, code: int) -> Image:
        """The mask of one of 256 characters."""
        if code not in self._masks:
            mask = self._image.new("L", (CELL_WIDTH, CELL_HEIGHT))
            self._draw.Draw(mask).text((0, BASELINE), GLYPHS[code], fill=255, font=self._font, anchor="ls")
            self._masks[code] = mask.resize((CELL_WIDTH, self._height))
        return self._masks[code]


def prepare() -> None:
    """Load the extra, if it is there: a confined VMM could not."""
    with suppress(ImportError, UsageError):
        Glyphs(1)[ord("A")]


def pixels_of(
    mode: TextMode, rows: Sequence[bytes], attributes: Sequence[bytes], cursor: tuple[int, int] | None
) -> Picture:
    """The picture of a screen: the characters and attributes of each row, row and column of the cursor.

    Raises UsageError without the extra.
    """
    image = _image_of(mode, rows, attributes, cursor)
    return Picture(image.width, image.height, image.tobytes())


def _image_of(
    mode: TextMode, rows: Sequence[bytes], attributes: Sequence[bytes], cursor: tuple[int, int] | None
) -> Image:
    height = mode.height * SCALE
    glyphs = Glyphs(height)
    from PIL import Image as images

    colors = [_eight_bits(color) for color in mode.colors]
    picture = images.new("RGB", (CELL_WIDTH * mode.columns, height * mode.rows), colors[0])
    for row, codes in enumerate(rows):
        for column, (code, attribute) in enumerate(zip(codes, attributes[row], strict=True)):
            left, top = column * CELL_WIDTH, row * height
            background = attribute >> 4 & (7 if mode.blinks else 15)
            if background:
                picture.paste(colors[background], (left, top, left + CELL_WIDTH, top + height))
            if GLYPHS[code] != " ":
                picture.paste(colors[attribute & 15], (left, top), glyphs[code])
    if cursor is not None:
        row, column = cursor
        left, top = column * CELL_WIDTH, row * height
        first, last = mode.cursor_lines
        color = colors[attributes[row][column] & 15]
        bottom = min((last + 1) * SCALE, height)
        if first * SCALE < bottom:
            picture.paste(color, (left, top + first * SCALE, left + CELL_WIDTH, top + bottom))
    return picture


def _eight_bits(color: Color) -> Color:
    red, green, blue = (level * 255 // 63 for level in color)
    return red, green, blue
