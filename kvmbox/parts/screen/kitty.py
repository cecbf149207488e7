"""Pictures by the terminal graphics protocol of kitty, which Ghostty, Konsole and WezTerm have, too.

Source: "The terminal graphics protocol", of kitty's documentation. A picture is RGB of 24 bits, compressed by
zlib, in base64, in pieces of 4096 characters. It has one of two numbers in turn, and the one before is
deleted behind it, so that nothing flickers. q=2 forbids each answer.

zlib and binascii may have shared objects, which a confined VMM cannot load: they come with this module.
"""

from __future__ import annotations

import binascii
import os
import zlib
from collections.abc import Iterator
from typing import Any, Final

from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.pixels import Pixels

PIECE: Final = 4096
_INPUT: Final = 1 << 16
"""Bytes that are compressed at once."""
_FAST: Final = 1


class Kitty(Pixels):
    """See `Pixels`."""

    def __init__(self, *arguments: Any) -> None:
        """See `Pixels`."""
        super().__init__(*arguments)
        number = 0x6B << 24 | os.getpid() << 1  # unlike those of other programs
        self._numbers = number, number + 1
        self.erase = b"".join(map(_deletion, self._numbers))

    def encode(self, picture: Picture) -> Iterator[bytes]:
        """See `Pixels`."""
        packer = zlib.compressobj(_FAST)
        packed = b""
        for at in range(0, len(picture.rgb), _INPUT):
            packed += packer.compress(picture.rgb[at : at + _INPUT])
            yield b""
        text = binascii.b2a_base64(packed + packer.flush(), newline=False)
        number, old = self._numbers
        keys = f"a=T,C=1,f=24,i={number},o=z,s={picture.width},v={picture.height},q=2,m="
        pieces = []
        for at in range(0, len(text), PIECE):
            has_more = at + PIECE < len(text)
            pieces.append(b"\x1b_G%s%d;%s\x1b\\" % (keys.encode(), has_more, text[at : at + PIECE]))
            keys = "q=2,m="
        yield b"".join(pieces) + _deletion(old)
        self._numbers = old, number  # only now: it may have been too long


def _deletion(number: int) -> bytes:
    return b"\x1b_Ga=d,d=I,i=%d,q=2\x1b\\" % number
