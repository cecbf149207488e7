"""The screen of a boot on a page: what a monitor shows, as a PNG picture in the page itself.

What is drawn is the JSON of a screen (docs/screen.md), from a process that a guest may have taken over. So it
reaches a page as text, as numbers within bounds, and as base64.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from kvmbox.base.errors import UsageError
from kvmbox.parts.screen.glyphs import GLYPHS
from kvmbox.parts.screen.mode import MODE_3, MOST_COLUMNS, MOST_ROWS
from kvmbox.parts.screen.picture import SIGNATURE
from kvmbox.parts.screen.text_picture import pixels_of
from kvmbox.tools.html.html_page import block, text

MOST_PICTURES: Final = 8 << 20
"""How many bytes all pictures of a page have, in base64."""
MOST_ALT: Final = 1000
"""How many characters of a text stand for its picture."""

_CODES: Final = {glyph: code for code, glyph in enumerate(GLYPHS)}


class Screens:
    """Draws screens until the page is full."""

    def __init__(self) -> None:
        self._room = MOST_PICTURES

    def shown(self, screen: Mapping[str, Any] | None, *, level: int) -> str:
        """The screen as HTML, with a heading of `level`; nothing for what is no screen."""
        found = ""
        if screen is not None:
            with suppress(LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
                found = self._graphics(screen["picture"]) if screen["picture"] else self._text(screen)
        return found and f"<h{level}>Screen</h{level}>\n{found}"

    def _graphics(self, picture: Mapping[str, Any]) -> str:
        alt = f"a picture of {int(picture['width'])} x {int(picture['height'])} pixels"
        if picture["png"] is None:
            return f'<p class="dim">{alt}, which is too large for this page</p>\n'
        return self._image(base64.b64decode(picture["png"], validate=True), alt) or _left_out(alt)

    def _text(self, screen: Mapping[str, Any]) -> str:
        """Characters in their colours; only characters where nothing draws them."""
        columns = min(int(screen["columns"]), MOST_COLUMNS)
        rows = [str(row)[:columns] for row in screen["rows"][:MOST_ROWS]]
        shown = "\n".join(rows).strip("\n")
        if not self._room:
            return block(shown)
        codes = [bytes(_CODES.get(glyph, 0) for glyph in row.ljust(columns)) for row in rows]
        attributes = [
            bytes.fromhex(row)[:columns].ljust(columns, b"\x07") for row in screen["attributes"][: len(rows)]
        ]
        cursor = screen["cursor"] and (int(screen["cursor"]["row"]), int(screen["cursor"]["column"]))
        if cursor and not (0 <= cursor[0] < len(rows) and 0 <= cursor[1] < columns):
            cursor = None
        mode = MODE_3.replaced(columns=columns, rows=len(rows))
        with suppress(UsageError):  # without kvmbox[screen]
            alt = f"text on the screen: {' '.join(shown.split())[:MOST_ALT]}"
            return self._image(pixels_of(mode, codes, attributes, cursor).png(), alt) or block(shown)
        return block(shown)

    def _image(self, png: bytes, alt: str) -> str:
        """The picture, or nothing where there is no room. Raises ValueError if it is none."""
        if not png.startswith(SIGNATURE):
            raise ValueError("no PNG file")
        data = base64.b64encode(png).decode()
        if len(data) > self._room:
            self._room = 0  # to draw text takes 30 ms
            return ""
        self._room -= len(data)
        return f'<img src="data:image/png;base64,{data}" alt="{text(alt)}">\n'


def _left_out(alt: str) -> str:
    return f'<p class="dim">{alt}, which is left out: this page has too many pictures</p>\n'
