"""What the characters of code page 437 look like, as characters of Unicode that are safe to print.

The codec of Python maps 0x00 to 0x1F and 0x7F to control characters. On a screen they are pictures, and no
control character of a guest may reach a terminal. Both blanks of the code page, 0x00 and 0xFF, are a blank.
"""

from __future__ import annotations

from typing import Final

_PICTURES: Final = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
_BLANK: Final = 0xFF
_HOUSE: Final = 0x7F

GLYPHS: Final = _PICTURES + "".join(
    "⌂" if code == _HOUSE else " " if code == _BLANK else bytes((code,)).decode("cp437")
    for code in range(len(_PICTURES), 256)
)
"""The character of each of the 256 codes."""

_TABLE: Final = {code: GLYPHS[code] for code in range(256)}


def text_of(codes: bytes | bytearray) -> str:
    """What these characters look like."""
    return codes.decode("latin-1").translate(_TABLE)
