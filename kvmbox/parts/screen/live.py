"""The text of the screen on a terminal while the guest runs: drawn again over itself when it changes.

What is drawn stays on the terminal, as everything that is printed. The control sequences are those of ECMA-48
(CUU, EL, ED), and DECAWM of a VT100, by which a terminal that is too narrow cuts rows. The text has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

USUAL_LINES: Final = 24


class LiveText:
    """What is on the terminal of one run. The cursor is in the line below."""

    def __init__(self, lines: int) -> None:
        """The terminal has so many lines; 0: nobody knows."""
        self._room = max(1, (lines or USUAL_LINES) - 1)
        self._drawn = 0

    def frame(self, rows: Sequence[str], *, is_last: bool = False) -> bytes:
        """What draws `rows` in place of those that were drawn before: the last ones, as far as there is room;
        all of them for the last time.
        """
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        shown = rows if is_last else rows[-self._room :]
        text = "".join(f"{row}\x1b[K\n" for row in shown)
        if not is_last:
            text = f"\x1b[?7l{text}\x1b[?7h"
        self._drawn = len(shown)
        return f"\r{up}{text}\x1b[J".encode()

    def beside(self, say: Callable[[str], None]) -> Callable[[str], None]:
        """Like `say`, whose lines come on the same terminal: what is drawn next is below."""

        def tell(line: str) -> None:
            self._drawn = 0
            say(line)

        return tell
