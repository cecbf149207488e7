"""What is typed on a terminal in raw mode, put together to lines, and what of it the person sees. Pure."""

from __future__ import annotations

from typing import Final

PROMPT: Final = "(kvmbox) "
MOST_TYPED: Final = 1000
"""Characters of a line: those behind them are dropped."""

_BACKSPACES: Final = "\x08\x7f"
_CANCEL: Final = "\x03\x15"  # Ctrl-C, Ctrl-U
_LEAVE: Final = "\x04"  # Ctrl-D


class LineEditor:
    """Takes what is typed piece by piece."""

    def __init__(self) -> None:
        self._line = ""

    def feed(self, typed: bytes) -> tuple[list[str], str, bool]:
        """The lines that are finished, what is to be shown, and whether Ctrl-D leaves. Only ASCII counts."""
        lines: list[str] = []
        shown = ""
        for one in typed.decode("ascii", "ignore"):
            if one in "\r\n":
                lines.append(self._line)
                self._line = ""
                shown += "\n"
            elif one in _BACKSPACES:
                shown += "\b \b" if self._line else ""
                self._line = self._line[:-1]
            elif one in _CANCEL:
                shown += f"\n{PROMPT}"
                self._line = ""
            elif one in _LEAVE and not self._line:
                return lines, shown, True
            elif one.isprintable() and len(self._line) < MOST_TYPED:
                self._line += one
                shown += one
        return lines, shown, False
