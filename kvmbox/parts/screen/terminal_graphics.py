"""What a terminal has for pictures: kitty's graphics, sixels, or blocks of colour.

The environment says it, and the terminal is not asked: it would answer on stdin, which is the guest's. A
terminal inherits the environment of the one that it was started in, so what all of them set comes first:
TERM. tmux and screen keep pictures.
"""

from __future__ import annotations

import fcntl
import os
import termios
import time
from collections.abc import Callable, Mapping
from functools import partial
from struct import Struct
from typing import Final

from kvmbox.parts.screen.pixels import Pixels, Window

BLOCKS: Final = "blocks"
KITTY: Final = "kitty"
SIXEL: Final = "sixel"
SIGNS: Final = (
    *(("TMUX", "", BLOCKS), ("STY", "", BLOCKS), ("TERM", "tmux", BLOCKS), ("TERM", "screen", BLOCKS)),
    *(("TERM", "xterm-kitty", KITTY), ("TERM", "xterm-ghostty", KITTY), ("TERM", "wezterm", KITTY)),
    *(("TERM", "foot", SIXEL), ("TERM", "mlterm", SIXEL), ("TERM", "vt340", SIXEL)),
    *(("XTERM_VERSION", "", BLOCKS), ("VTE_VERSION", "", BLOCKS), ("TERM_PROGRAM", "vscode", BLOCKS)),
    *(("TERM_PROGRAM", "WezTerm", KITTY), ("TERM_PROGRAM", "ghostty", KITTY), ("KITTY_WINDOW_ID", "", KITTY)),
)
"""A variable, how its value begins, and what such a terminal has: the first one that is there counts."""
KONSOLE: Final = "220400"
"""The first KONSOLE_VERSION with kitty's graphics."""

_WINDOW: Final = Struct("4H")  # struct winsize of <asm/termios.h>


def window_of(descriptor: int) -> Window:
    """What the kernel says of a terminal: nothing if it has hung up, which whoever writes to it reports."""
    try:
        return Window(*_WINDOW.unpack(fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(_WINDOW.size))))
    except OSError:
        return Window(0, 0)


def way_of(environment: Mapping[str, str]) -> str:
    """What the terminal of this environment has."""
    for name, beginning, way in SIGNS:
        if (value := environment.get(name)) and value.startswith(beginning):
            return way
    return KITTY if environment.get("KONSOLE_VERSION", "") >= KONSOLE else BLOCKS


def pixels_on(descriptor: int, asked: str, say: Callable[[str], None]) -> Pixels | None:
    """What draws in the way that was `asked` for, or that the terminal has if that is empty; None: blocks."""
    window = window_of(descriptor)
    way = asked or (way_of(os.environ) if window.width and window.height else BLOCKS)
    size = partial(window_of, descriptor)
    if way == KITTY:
        from kvmbox.parts.screen.kitty import Kitty

        return Kitty(size, say, time.monotonic)
    if way == SIXEL:
        from kvmbox.parts.screen.sixel import Sixel

        return Sixel(size, say, time.monotonic)
    return None
