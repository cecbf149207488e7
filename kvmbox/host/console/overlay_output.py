"""Output on a terminal with a picture below it: what a port prints goes above the picture, and erases it.

A frame begins at the cursor, which is where the output ends, and leaves it there: it is drawn below, or in
the same line where that is empty. So whatever is printed next continues the line. It is preceded by a
sequence that erases the frame (ED of ECMA-48, at least), and the next frame is drawn below it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from kvmbox.host.console.output_stream import GATHER_SIZE, OutputStream

ERASE: Final = b"\x1b[J"
MOST_FLUSHES: Final = 10
"""How many times as long as other streams the last flush may take, while the terminal takes something."""


class DrawnStream(OutputStream):
    """The stream of a terminal that is drawn on."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """See OutputStream."""
        super().__init__(*arguments, **options)
        self._drawing = threading.Lock()
        self._at_line_start = True
        self._erase = ERASE
        self.is_drawn = False
        """Whether the last frame is on the terminal."""

    def append(self, data: bytes) -> None:
        """See OutputStream."""
        with self._drawing:
            erase, self.is_drawn = self._erase if self.is_drawn else b"", False
            self._at_line_start = data.endswith(b"\n") if data else self._at_line_start
            super().append(erase + data)

    def flush(self, seconds: float) -> int:
        """See OutputStream. A picture is long, and a terminal that takes it slowly does not lose it."""
        left = super().flush(seconds)
        for _ in range(MOST_FLUSHES - 1):
            before = left
            if not left or (left := super().flush(seconds)) >= before:
                break
        return left

    @property
    def is_behind(self) -> bool:
        """Whether the terminal has not taken much of what was drawn."""
        return self._unwritten() >= GATHER_SIZE

    def draw(self, frame: Callable[[bool], bytes], erase: bytes = ERASE) -> None:
        """Draw a frame, which is told whether the cursor is at the beginning of a line. `erase` erases it."""
        with self._drawing:
            super().append(frame(self._at_line_start))
            self.is_drawn, self._erase = True, erase
