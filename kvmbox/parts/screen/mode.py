"""What of the text memory is on the screen, and where: from the registers of a VGA, or the data of a BIOS.

Registers and memory are the guest's, so every number is brought into a range that can be shown.
"""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.devices.vga import model as registers
from kvmbox.devices.vga.model import VgaText

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MOST_COLUMNS: Final = 160
MOST_ROWS: Final = 64
CELLS: Final = layout.TEXT_SCREEN_SIZE // 2
_MONOCHROME_MAP: Final = 2

Color = tuple[int, int, int]
"""Red, green and blue, 0 to 63 each."""


class TextMode(Value):
    """Row `r` shows the characters from `start + r * pitch` on, modulo the size of the memory at `base`.

    `cursor` counts as `start` does, and is None for one that is off. The cursor covers the lines
    `cursor_lines` of the `height` lines of a character. `has_graphics` says that the memory does not hold
    characters: what is shown as text then is what was left of it.
    """

    columns: int
    rows: int
    pitch: int
    start: int
    cursor: int | None
    base: int
    height: int
    cursor_lines: tuple[int, int]
    blinks: bool
    has_graphics: bool
    colors: tuple[Color, ...]


def lines_of(crtc: bytes | bytearray) -> int:
    """How many lines a frame has. Bits 8 and 9 of the last one are bits 1 and 6 of the overflow register."""
    overflow = crtc[registers.OVERFLOW]
    last = crtc[registers.VERTICAL_DISPLAY_END] | (overflow & 1 << 1) << 7 | (overflow & 1 << 6) << 3
    return last + 1


def mode_of(vga: VgaText) -> TextMode:
    """What the registers of a VGA say."""
    crtc = vga.crtc
    columns = min(crtc[registers.HORIZONTAL_DISPLAY_END] + 1, MOST_COLUMNS)
    height = (crtc[registers.MAXIMUM_SCAN_LINE] & 0x1F) + 1
    return TextMode(
        columns=columns,
        rows=min(max(1, lines_of(crtc) // height), MOST_ROWS),
        pitch=crtc[registers.OFFSET] * 2 or columns,
        start=vga.start % CELLS,
        cursor=None if crtc[registers.CURSOR_START] & registers.CURSOR_OFF else vga.cursor % CELLS,
        base=layout.MONOCHROME_SCREEN if vga.memory_map == _MONOCHROME_MAP else layout.TEXT_SCREEN,
        height=height,
        cursor_lines=(crtc[registers.CURSOR_START] & 0x1F, crtc[registers.CURSOR_END] & 0x1F),
        blinks=vga.blinks,
        has_graphics=vga.has_graphics,
        colors=tuple(vga.colors),
    )


MODE_3: Final = mode_of(VgaText())
"""What is shown at power-on."""

# Of the BIOS data area, from its beginning (IBM PS/2 and PC BIOS Interface Technical Reference).
_MODE: Final = 0x49
_COLUMNS: Final = 0x4A
_PAGE_START: Final = 0x4E
_CURSOR: Final = 0x50
_PAGE: Final = 0x62
_LAST_ROW: Final = 0x84
_PAGES: Final = 8
_MONOCHROME_MODE: Final = 7


def mode_of_bios(area: bytes) -> TextMode:
    """What the built-in BIOS says in its data area, before anybody has set a register.

    The guest may have overwritten the area. What no BIOS says counts as mode 3.
    """

    def word(offset: int) -> int:
        return int.from_bytes(area[offset : offset + 2], "little")

    columns, start, page = word(_COLUMNS), word(_PAGE_START), area[_PAGE]
    is_good = (
        area[_MODE] in (*range(4), _MONOCHROME_MODE)
        and columns == (40 if area[_MODE] < 2 else 80)
        and area[_LAST_ROW] == MODE_3.rows - 1
        and page < _PAGES
        and start == page * (0x1000 if columns == 80 else 0x800)
    )
    if not is_good:
        return MODE_3
    cursor = word(_CURSOR + 2 * page)
    column, row = cursor & 0xFF, cursor >> 8
    is_monochrome = area[_MODE] == _MONOCHROME_MODE
    return TextMode(
        **MODE_3.as_dict()
        | {
            "columns": columns,
            "pitch": columns,
            "start": start // 2,
            "cursor": (start // 2 + row * columns + column) % CELLS,
            "base": layout.MONOCHROME_SCREEN if is_monochrome else layout.TEXT_SCREEN,
        }
    )
