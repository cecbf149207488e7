"""The text of the screen on a terminal while the guest runs: drawn again over itself when it changes.

What ports print is above it (`host.console.overlay_output`). The control sequences are those of ECMA-48 (CUU,
EL, ED), and of a VT100: IND makes room below without a change of the column, DECSC and DECRC put the cursor
back to where output continues, and by DECAWM a terminal that is too narrow cuts rows. The text has none. A
picture in pixels is drawn over the one before, so that nothing flickers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvmbox.host.console.overlay_output import ERASE
from kvmbox.parts.screen.pixels import USUAL_COLUMNS, USUAL_LINES

if TYPE_CHECKING:
    from kvmbox.parts.screen.picture import Picture
    from kvmbox.parts.screen.pixels import Drawing, Pixels


class LiveText:
    """What is on the terminal of one run."""

    def __init__(self, lines: int, columns: int = 0, pixels: Pixels | None = None) -> None:
        """The terminal has so many lines and columns; 0: nobody knows. `pixels` draws pictures, if they are
        not blocks.
        """
        self.room = max(1, (lines or USUAL_LINES) - 1)
        """How many rows may be drawn over."""
        self.columns = columns or USUAL_COLUMNS
        self.is_hidden = True
        """Whether a message has been printed over what was drawn."""
        self.drawn: Sequence[str] | Picture = ()
        """What is drawn: rows, or a picture in pixels."""
        self.pixels = pixels
        self.erase = ERASE + (pixels.erase if pixels is not None else b"")
        """What erases it."""

    def frame(self, rows: Sequence[str], *, at_line_start: bool, is_last: bool = False) -> bytes:
        """What draws `rows`: the last ones, as far as there is room; at last all of them, for good."""
        self.is_hidden, self.drawn = False, rows
        begin = "" if at_line_start else "\n"
        if is_last:
            return self.erase + "".join((begin if rows else "", *(f"{row}\n" for row in rows))).encode()
        shown = rows[-self.room :]
        if not shown:
            return self.erase
        below = len(shown) - at_line_start
        room = "\x1bD" * below + f"\x1b[{below}A" if below else ""
        text = "\n".join(f"{row}\x1b[K" for row in shown)
        return room.encode() + self.erase + f"\x1b7\x1b[?7l{begin}{text}\x1b[?7h\x1b8".encode()

    def picture(
        self, drawing: Drawing, *, at_line_start: bool, is_last: bool = False, is_drawn: bool = False
    ) -> bytes:
        """What draws a picture in pixels, if it is not drawn; at last for good."""
        before, now = self.drawn, drawing.picture
        self.is_hidden, self.drawn = False, now
        below = drawing.lines + (not at_line_start)
        frame = b""
        if not is_drawn:
            is_as_large = [getattr(before, side, 0) for side in ("width", "height")] == [
                now.width,
                now.height,
            ]
            room = b"\x1bD" * below + b"\x1b[%dA" % below + (b"" if is_as_large else self.erase)
            frame = room + b"\x1b7" + (b"" if at_line_start else b"\n") + drawing.data + b"\x1b8"
        if is_last:
            self.erase = ERASE
            frame += b"\n" * below
        return frame

    def beside(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Like `say`, whose lines may come on the same terminal: they are above what is drawn next."""

        def tell(line: str) -> None:
            self.is_hidden = True
            if os.isatty(2):
                os.write(2, b"\r" + self.erase)
            say(line)

        return tell
