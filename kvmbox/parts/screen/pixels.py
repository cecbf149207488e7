"""Pictures in the pixels of a terminal: how large they may be, and how long they take.

A picture that has no room is drawn with every second pixel, or every third, and so on, and so is one whose
frame would be too long. The main thread draws a piece of it in each slice, for a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.parts.screen.picture import Picture

USUAL_LINES: Final = 24
USUAL_COLUMNS: Final = 80
MOST_FRAME: Final = 1 << 19
"""Bytes of a frame: half of what waits for a terminal until the guest does."""
SHARE: Final = 4
"""One part in so many of the time is for drawing."""
LAST_SECONDS: Final = 3.0
"""How long the last picture may take, before it has half as many pixels in a line; and then again."""
_CELL: Final = 10, 20  # of a VT340


class Window(Value):
    """The size of a terminal in characters, and in pixels, which are 0 if nobody knows."""

    lines: int
    columns: int
    width: int = 0
    height: int = 0


class Drawing(Value):
    """What draws a picture from the cursor on, over so many lines; where it leaves the cursor is unknown."""

    picture: Picture
    lines: int
    data: bytes


class Pixels:
    """Draws pictures on one terminal. A subclass knows the protocol."""

    erase = b""
    """What erases a picture, beside ED."""

    def __init__(
        self, window: Callable[[], Window], say: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        """`window` is the size of the terminal now; `clock` counts seconds."""
        self._window = window
        self._say: Callable[[str], None] | None = say  # until there was something to say
        self._clock = clock
        self._left = clock()  # when it was last drawn
        self._work: Iterator[Drawing | None] = iter(())
        self._drawing: Drawing | None = None
        self._size = 0, 0  # of the last picture
        self._step = 1
        self._tried = 1

    def drawing(self, picture: Picture, *, is_last: bool = False) -> Drawing | None:
        """The picture, or one that was begun before; None if there was no time for it. The last has it."""
        if self._drawing is not None and self._drawing.picture == picture:
            return self._drawing
        if is_last:
            self._work = iter(())
        until = self._clock() + (LAST_SECONDS if is_last else (self._clock() - self._left) / SHARE)
        found = None
        while found is None and (is_last or self._clock() < until):
            if self._clock() >= until:
                until += LAST_SECONDS
                self._work = self._draw(picture, 2 * self._tried)
            try:
                found = next(self._work)
            except StopIteration:
                self._work = self._draw(picture)
        self._left = self._clock()
        self._drawing = found or self._drawing
        return found

    def _draw(self, picture: Picture, least: int = 1) -> Iterator[Drawing | None]:
        """None as often as there is more to do, and at last the drawing, of every `least`th pixel at most."""
        window = self._window()
        columns, lines = window.columns or USUAL_COLUMNS, window.lines or USUAL_LINES
        cell_width, cell_height = window.width // columns or _CELL[0], window.height // lines or _CELL[1]
        width, height = columns * cell_width, max(1, lines - 1) * cell_height
        size = picture.width, picture.height
        fits = max(-(-picture.width // width), -(-picture.height // height))
        if fits > 1 and self._say is not None:
            self._say(f"a terminal of {width} x {height} pixels shows every {fits}. pixel of the picture")
            self._say = None
        first = max(fits, least, self._step if size == self._size else 1)
        for step in count(first):
            self._tried = step
            drawn = _thinned(picture, step)
            data = bytearray()
            for piece in self.encode(drawn):
                data += piece
                if len(data) > MOST_FRAME:
                    break
                yield None
            else:
                self._size, self._step = size, step - (len(data) < MOST_FRAME // 8)
                yield Drawing(picture, -(-drawn.height // cell_height), bytes(data))
                return

    def encode(self, picture: Picture) -> Iterator[bytes]:
        """What draws the picture, in pieces that take some milliseconds at most."""
        raise NotImplementedError


def _thinned(picture: Picture, step: int) -> Picture:
    """Every so manieth pixel of every so manieth line."""
    if step == 1:
        return picture
    line, width = 3 * picture.width, -(-picture.width // step)
    lines = []
    for at in range(0, line * picture.height, line * step):
        pixels = bytearray(3 * width)
        for color in range(3):
            pixels[color::3] = picture.rgb[at + color : at + line : 3 * step]
        lines.append(pixels)
    return Picture(width, len(lines), b"".join(lines))
