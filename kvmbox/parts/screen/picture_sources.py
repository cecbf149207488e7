"""What a monitor shows in place of text: the first source of a picture that is on.

A source is a function. It looks at the registers of the VGA and at guest memory, and answers None while it is
off. A linear frame buffer is before the VGA's own graphics, because it hides them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.parts.screen.linear import linear_picture
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.picture_inputs import Look

Source = Callable[[Look], Picture | None]


def vga_graphics(look: Look) -> Picture | None:
    """The graphics of the VGA's own registers."""
    vga = look.vga
    if vga is None or not vga.has_graphics:
        return None
    from kvmbox.parts.screen.vga_picture import picture_of_vga

    window = vga.window.plain
    return picture_of_vga(vga, vga.window.planes_with(b"" if window is None else look.memory.read(*window)))


SOURCES: Final[tuple[Source, ...]] = (linear_picture, vga_graphics)


def picture_of(look: Look) -> Picture | None:
    """The picture of the first source that is on, or None: the screen has text."""
    return next((picture for source in SOURCES if (picture := source(look)) is not None), None)
