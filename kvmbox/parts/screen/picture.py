"""A picture: pixels, and the PNG file of them.

PNG is ISO/IEC 15948. A file of ours has the chunks IHDR, IDAT and IEND, 8 bits for each of red, green and
blue, and no filter of lines. zlib, hashlib and base64 are imported when they are wanted: they have shared
objects, which a confined VMM cannot load.
"""

from __future__ import annotations

import os
import sys
from operator import sub
from struct import Struct
from typing import Any, Final

from kvmbox.base.errors import StartError, UsageError
from kvmbox.base.value_classes import Value

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = Struct(">2I 5B")
_LENGTH: Final = Struct(">I")
_TRUE_COLOR: Final = 2
MOST_PNG: Final = 1 << 19
"""How many bytes of a PNG file JSON has."""


class Picture(Value):
    """`width` x `height` pixels, from the upper left one on. `rgb` has 3 bytes of each: red, green, blue."""

    width: int
    height: int
    rgb: bytes
    _shown = ("width", "height")

    @property
    def sha256(self) -> str:
        """The hash of the pixels, in hexadecimal. Two pictures of one size are equal if it is."""
        import hashlib

        return hashlib.sha256(self.rgb).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Its size; hash, and the file in base64 if it is not too long, as far as they can be made: `kvmbox
        run --json` has seen to that.
        """
        digest = self.sha256 if "hashlib" in sys.modules else None
        return {"width": self.width, "height": self.height, "sha256": digest, "png": self._base64()}

    def _base64(self) -> str | None:
        if not {"zlib", "base64"} <= sys.modules.keys():
            return None
        import base64

        png = self.png()
        return base64.b64encode(png).decode() if len(png) <= MOST_PNG else None

    @property
    def is_blank(self) -> bool:
        """Whether all of it is black."""
        return not self.rgb.strip(b"\0")

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """Red, green and blue of one pixel, 0 to 255 each. Raises UsageError if it is not there."""
        red, green, blue = self.region(x, y, 1, 1).rgb
        return red, green, blue

    def region(self, x: int, y: int, width: int, height: int) -> Picture:
        """The part of this size that begins at pixel (x, y). Raises UsageError if it is not all there."""
        if min(x, y) < 0 or min(width, height) < 1 or x + width > self.width or y + height > self.height:
            part = f"a region of {width} x {height} at ({x}, {y})"
            raise UsageError(f"{part} is not in a picture of {self.width} x {self.height}")
        starts = (3 * (row * self.width + x) for row in range(y, y + height))
        return Picture(width, height, b"".join(self.rgb[at : at + 3 * width] for at in starts))

    def difference(self, other: Picture) -> float:
        """How much another picture differs: the mean difference of a level, of 1. Of another size: 1."""
        if (self.width, self.height) != (other.width, other.height):
            return 1.0
        if self.rgb == other.rgb:
            return 0.0
        total: int = sum(map(abs, map(sub, self.rgb, other.rgb)))
        return total / (255 * len(self.rgb))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Picture:
        """The picture in an image file. StartError; UsageError without kvmbox[screen]."""
        try:
            from PIL import Image
        except ImportError as error:
            raise UsageError(
                "to read a picture needs the package Pillow", hint="pip install 'kvmbox[screen]'"
            ) from error
        try:
            with Image.open(path) as image:
                return cls(*image.size, image.convert("RGB").tobytes())
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise StartError(
                f"cannot read the picture '{os.fspath(path)}': {getattr(error, 'strerror', None) or error}",
                hint="name a PNG file, or another that Pillow reads",
            ) from error

    def png(self) -> bytes:
        """The picture as a PNG file."""
        import zlib

        def chunk(name: bytes, data: bytes) -> bytes:
            return _LENGTH.pack(len(data)) + name + data + _LENGTH.pack(zlib.crc32(name + data))

        line = 3 * self.width
        lines = b"".join(
            b"\0" + self.rgb[start : start + line] for start in range(0, line * self.height, line)
        )
        header = _HEADER.pack(self.width, self.height, 8, _TRUE_COLOR, 0, 0, 0)
        return (
            SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
        )
