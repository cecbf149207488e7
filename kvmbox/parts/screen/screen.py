"""A text screen at one moment: rows of text, attributes, the cursor."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.parts.screen.mode import CELLS, MODE_3, TextMode
from kvmbox.parts.screen.picture import Picture


class Cursor(Value):
    """Where the cursor is, counted from 0."""

    row: int
    column: int


class Screen:
    """What is on the text screen of a guest.

    `str(screen)` is its text. Two screens are equal if they show the same.
    """

    def __init__(self, memory: bytes, mode: TextMode, picture: Picture | None = None) -> None:
        """`memory` is what the guest has at `mode.base`: 32 KiB. `picture` is shown in place of text."""
        self.mode = mode
        self.picture = picture
        """What a monitor shows if the guest has graphics, pixel by pixel; None if it has text."""
        self._cells = [self._row(memory, row) for row in range(mode.rows)]

    def _row(self, memory: bytes, row: int) -> bytes:
        mode = self.mode
        first = (mode.start + row * mode.pitch) % CELLS
        cells = memory[2 * first : 2 * (first + mode.columns)]
        missing = 2 * mode.columns - len(cells)
        return cells + memory[:missing]  # the memory is a ring

    @property
    def columns(self) -> int:
        """How many characters a row has."""
        return self.mode.columns

    @property
    def has_graphics(self) -> bool:
        """Whether the guest has switched to graphics: a monitor shows no text, but `picture`."""
        return self.picture is not None or self.mode.has_graphics

    @cached_property
    def codes(self) -> tuple[bytes, ...]:
        """The characters of each row in code page 437."""
        return tuple(cells[0::2] for cells in self._cells)

    @cached_property
    def attributes(self) -> tuple[bytes, ...]:
        """The attribute of each character of each row: bits 0 to 3 are its colour, 4 to 6 the background's,
        and 7 makes it blink.
        """
        return tuple(cells[1::2] for cells in self._cells)

    @cached_property
    def _full_rows(self) -> tuple[str, ...]:
        from kvmbox.parts.screen.glyphs import text_of

        return tuple(map(text_of, self.codes))

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """Each row as text, without the blanks at its end."""
        return tuple(row.rstrip(" ") for row in self._full_rows)

    @cached_property
    def text(self) -> str:
        """The rows, one a line, without the empty ones at the end."""
        return "\n".join(self.rows).rstrip("\n")

    @property
    def forms(self) -> tuple[str, str]:
        """The text in the two forms in which a text is searched for: `text`, and all rows with the blanks at
        their ends. Memory does not tell whether the guest has printed these blanks, as behind a prompt.
        """
        return self.text, "\n".join(self._full_rows)

    @property
    def is_blank(self) -> bool:
        """Whether nothing is to be seen: neither text nor colours, nor a picture."""
        if self.picture is not None:
            return self.picture.is_blank
        return not self.text and not self.has_colors

    @property
    def has_colors(self) -> bool:
        """Whether the background of a character is not black."""
        bits = 0x07 if self.mode.blinks else 0x0F
        backgrounds = {attribute >> 4 & bits for attribute in set().union(*self.attributes)}
        return any(any(self.mode.colors[background]) for background in backgrounds)

    @property
    def cursor(self) -> Cursor | None:
        """Where the cursor is; None if it is off, or not on the screen."""
        mode = self.mode
        if mode.cursor is None or mode.cursor_lines[0] > mode.cursor_lines[1]:
            return None
        row, column = divmod((mode.cursor - mode.start) % CELLS, mode.pitch)
        return Cursor(row, column) if row < mode.rows and column < mode.columns else None

    def as_json(self) -> dict[str, Any]:
        """The screen as data for JSON: attributes are hexadecimal, two digits a character."""
        cursor = self.cursor
        return {
            "rows": list(self.rows),
            "columns": self.columns,
            "cursor": None if cursor is None else cursor.as_dict(),
            "attributes": [attributes.hex() for attributes in self.attributes],
            "graphics": self.has_graphics,
            "picture": None if self.picture is None else self.picture.as_json(),
        }

    def png(self) -> bytes:
        """The screen as a PNG file: graphics pixel by pixel, or text in colour and with the cursor.

        Raises UsageError if there is text, and no kvmbox[screen] to draw it.
        """
        return self.pixels().png()

    def pixels(self) -> Picture:
        """The same as pixels. Raises UsageError, as `png` does."""
        if self.picture is not None:
            return self.picture
        from kvmbox.parts.screen.text_picture import pixels_of

        return pixels_of(self.mode, self.codes, self.attributes, self._place)

    @property
    def _place(self) -> tuple[int, int] | None:
        cursor = self.cursor
        return None if cursor is None else (cursor.row, cursor.column)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Screen {self.columns} x {len(self._cells)}: {self.picture or self.text[:40]!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Screen) and self._shown == other._shown

    def __hash__(self) -> int:
        return hash(self._shown)

    @property
    def _shown(self) -> tuple[object, ...]:
        return self.picture, tuple(self._cells), self.mode


BLANK: Final = Screen(bytes(layout.TEXT_SCREEN_SIZE), MODE_3)
"""The screen at power-on."""
