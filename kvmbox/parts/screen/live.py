"""The text of the screen on a terminal while the guest runs: drawn again over itself when it changes.

What ports print is above it (`host.drawn`). The control sequences are those of ECMA-48 (CUU, EL, ED), and of
a VT100: IND makes room below without a change of the column, DECSC and DECRC put the cursor back to where
output continues, and by DECAWM a terminal that is too narrow cuts rows. The text has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.host.drawn import ERASE

USUAL_LINES: Final = 24
USUAL_COLUMNS: Final = 80


class LiveText:
    """What is on the terminal of one run."""

    def __init__(self, lines: int, columns: int = 0) -> None:
        """The terminal has so many lines and columns; 0: nobody knows."""
        self.room = max(1, (lines or USUAL_LINES) - 1)
        """How many rows may be drawn over."""
        self.columns = columns or USUAL_COLUMNS
        self.is_hidden = True
        """Whether a message has been printed over what was drawn."""
        self.rows: Sequence[str] = ()
        """What is drawn."""

    def frame(self, rows: Sequence[str], *, at_line_start: bool, is_last: bool = False) -> bytes:
        """What draws `rows`: the last ones, as far as there is room; at last all of them, for good."""
        self.is_hidden, self.rows = False, rows
        begin = "" if at_line_start else "\n"
        if is_last:
            return ERASE + "".join((begin if rows else "", *(f"{row}\n" for row in rows))).encode()
        shown = rows[-self.room :]
        if not shown:
            return ERASE
        below = len(shown) - at_line_start
        room = "\x1bD" * below + f"\x1b[{below}A" if below else ""
        text = "\n".join(f"{row}\x1b[K" for row in shown)
        return room.encode() + ERASE + f"\x1b7\x1b[?7l{begin}{text}\x1b[?7h\x1b8".encode()

    def beside(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Like `say`, whose lines may come on the same terminal: they are above what is drawn next."""

        def tell(line: str) -> None:
            self.is_hidden = True
            if os.isatty(2):
                os.write(2, b"\r" + ERASE)
            say(line)

        return tell
