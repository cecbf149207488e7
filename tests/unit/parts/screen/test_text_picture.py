"""A screen as a picture: colours, cells, the cursor, and what is said where the extra is missing."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

import pytest

from kvmbox import UsageError
from kvmbox.devices.vga.model import VgaText
from kvmbox.parts.screen.mode import CELLS, MODE_3, TextMode, mode_of
from kvmbox.parts.screen.screen import BLANK, Screen

if TYPE_CHECKING:
    from PIL.Image import Image

WIDTH, HEIGHT = 18, 32
RED, WHITE = (170, 0, 0), (255, 255, 255)
FULL_BLOCK, LEFT_HALF = 0xDB, 0xDD


def picture(screen: Screen) -> Image:
    pytest.importorskip("fontpkg")
    image = pytest.importorskip("PIL.Image")
    data = screen.png()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    opened: Image = image.open(io.BytesIO(data))
    return opened


def cell(image: Image, row: int, column: int, height: int = HEIGHT) -> set[tuple[int, ...]]:
    """The colours in a cell."""
    left, top = column * WIDTH, row * height
    found = image.crop((left, top, left + WIDTH, top + height)).getcolors(WIDTH * height)
    assert found is not None
    return {color for _, color in found if isinstance(color, tuple)}


def screen_of(*cells: tuple[int, int], mode: TextMode = MODE_3, **changes: object) -> Screen:
    """A screen that begins with these characters and attributes."""
    begin = b"".join(bytes(one) for one in cells)
    return Screen(begin + bytes(2 * CELLS - len(begin)), TextMode(**mode.as_dict() | changes))


def test_picture_has_a_cell_for_each_character() -> None:
    image = picture(BLANK)
    assert image.size == (80 * WIDTH, 25 * HEIGHT)
    assert cell(image, 3, 4) == {(0, 0, 0)}


def test_attribute_gives_the_colours_of_character_and_background() -> None:
    image = picture(screen_of((FULL_BLOCK, 0x0F), (ord(" "), 0x4F), (LEFT_HALF, 0x4F), cursor=None))
    assert cell(image, 0, 0) == {WHITE}
    assert cell(image, 0, 1) == {RED}
    assert image.getpixel((2 * WIDTH + 1, 16)) == WHITE
    assert image.getpixel((3 * WIDTH - 1, 16)) == RED


def test_bit_7_makes_a_background_bright_where_it_does_not_blink() -> None:
    for blinks, expected in ((True, RED), (False, (255, 85, 85))):
        assert cell(picture(screen_of((ord(" "), 0xCF), cursor=None, blinks=blinks)), 0, 0) == {expected}


def test_every_character_but_blanks_is_drawn_and_within_its_cell() -> None:
    cells = [(code, 0x0F) if column % 2 else (0, 0x0F) for code in range(256) for column in range(2)]
    image = picture(screen_of(*cells, cursor=None))
    for code in range(256):
        row, column = divmod(2 * code, 80)
        assert cell(image, row, column) == {(0, 0, 0)}  # the blank beside it
        is_drawn = cell(image, row, column + 1) != {(0, 0, 0)}
        assert is_drawn == (code not in (0, 0x20, 0xFF)), code


def test_cursor_covers_its_lines() -> None:
    image = picture(screen_of((0, 0x0F), (0, 0x0F), cursor=1, cursor_lines=(13, 14)))
    colors = [image.getpixel((WIDTH + 5, y)) for y in range(HEIGHT)]
    assert [y for y in range(HEIGHT) if colors[y] == WHITE] == [26, 27, 28, 29]
    assert cell(image, 0, 0) == {(0, 0, 0)}


@pytest.mark.parametrize("cursor_lines", [(20, 31), (0, 31), (5, 4)])
def test_cursor_beyond_the_character_draws_in_its_cell_alone(cursor_lines: tuple[int, int]) -> None:
    image = picture(screen_of((0, 0x0F), cursor=0, cursor_lines=cursor_lines))
    assert cell(image, 1, 0) == {(0, 0, 0)}


def test_characters_of_8_lines_have_cells_of_half_the_height() -> None:
    vga = VgaText()
    vga.write(0, 0x24, 2, 0x09 | 0x47 << 8)
    image = picture(screen_of((FULL_BLOCK, 0x0F), mode=mode_of(vga), cursor=None))
    assert image.size == (80 * WIDTH, 50 * 16)
    assert cell(image, 0, 0, 16) == {WHITE}


def test_registers_beyond_reason_make_a_bounded_picture() -> None:
    vga = VgaText()
    for index in (0x11, *range(0x19)):
        vga.write(0, 0x24, 2, index | (0x7F if index == 0x11 else 0xFF) << 8)
    assert picture(screen_of((1, 1), mode=mode_of(vga))).size == (160 * WIDTH, 32 * 64)


def test_missing_extra_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match="a picture of the screen needs Pillow and a font: ") as caught:
        BLANK.png()
    assert caught.value.hint == "pip install 'kvmbox[screen]'"
