"""Pictures in what a terminal was sent, decoded as the terminals do: by kitty's protocol, or by sixels."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Final

from kvmbox.parts.screen.picture import Picture

_COMMAND: Final = re.compile(rb"\x1b_G([a-zA-Z0-9=,]*)(?:;([A-Za-z0-9+/=]*))?\x1b\\")
_SIXELS: Final = re.compile(rb'\x1bP0;1q"1;1;(\d+);(\d+)((?:#\d+;2;\d+;\d+;\d+)*)([#!$\-\d?-~]*)\x1b\\')
_COLOR: Final = re.compile(rb"#(\d+);2;(\d+);(\d+);(\d+)")
_STEP: Final = re.compile(rb"#(\d+)|!(\d+)([?-~])|([?-~])|([$\-])")


class KittyScreen:
    """What a terminal shows of kitty's graphics. Whatever it would answer, or refuse, fails."""

    def __init__(self) -> None:
        self.images: dict[int, Picture] = {}
        self._keys: dict[str, str] = {}
        self._text = b""

    def take(self, data: bytes) -> None:
        """Obey the commands in `data`; everything else is nothing to it."""
        for command in _COMMAND.finditer(data):
            keys = dict(pair.split("=") for pair in command[1].decode().split(","))
            assert keys["q"] == "2"
            if keys.get("a") == "d":
                assert not self._keys
                assert keys["d"] == "I"
                self.images.pop(int(keys["i"]), None)
                continue
            assert len(command[2]) <= 4096
            self._keys = self._keys or keys
            self._text += command[2]
            if keys["m"] == "0":
                self._show(self._keys, base64.b64decode(self._text, validate=True))
                self._keys, self._text = {}, b""

    def _show(self, keys: dict[str, str], packed: bytes) -> None:
        assert (keys["a"], keys["f"], keys["o"], keys["C"]) == ("T", "24", "z", "1")
        width, height, rgb = int(keys["s"]), int(keys["v"]), zlib.decompress(packed)
        assert len(rgb) == 3 * width * height
        assert int(keys["i"]) not in self.images, "the picture before is gone until all of this one has come"
        self.images[int(keys["i"])] = Picture(width, height, rgb)


def sixel_pictures(data: bytes) -> list[Picture]:
    """The pictures in what a terminal with 256 colours was sent. Each pixel must be drawn exactly once."""
    found = list(_SIXELS.finditer(data))
    assert data.count(b"\x1bP") == len(found)
    return [_picture(int(one[1]), int(one[2]), one[3], one[4]) for one in found]


def _picture(width: int, height: int, colors: bytes, steps: bytes) -> Picture:
    levels = {
        int(number): bytes((int(level) * 255 + 50) // 100 for level in rgb)
        for number, *rgb in _COLOR.findall(colors)
    }
    assert all(number < 256 for number in levels)
    pixels: dict[tuple[int, int], bytes] = {}
    x = y = end = 0
    color = b""
    for step in _STEP.finditer(steps):
        assert step.start() == end
        end = step.end()
        number, times, repeated, single, move = step.groups()
        if number:
            color = levels[int(number)]
        elif move:
            x, y = 0, y + (6 if move == b"-" else 0)
        else:
            bits = (repeated or single)[0] - 63
            right = x + int(times or 1)
            places = {(at, y + row) for at in range(x, right) for row in range(6) if bits >> row & 1}
            assert not places & pixels.keys()
            pixels.update(dict.fromkeys(places, color))
            x = right
    assert end == len(steps)
    assert y < height
    return Picture(width, height, b"".join(pixels[x, y] for y in range(height) for x in range(width)))
