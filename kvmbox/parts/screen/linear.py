"""The picture of a linear frame buffer: dots of 8, 15, 16, 24 or 32 bits, as the display interface says.

A megapixel is looked at many times. So no dot is: colours are made of planes of bytes, by slices, tables and
numbers of a million bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.base.value_classes import Value
from kvmbox.parts.screen.picture import Picture

if TYPE_CHECKING:
    from mmap import mmap

    from kvmbox.parts.screen.picture_inputs import Look


class LinearMode(Value):
    """`height` lines of `width` dots of `depth` bits: 8, 15, 16, 24 or 32.

    A line has `pitch` bytes, and the first one begins at byte `start` of the frame buffer. `has_wide_dac`
    says that the levels of the palette have 8 bits, and not 6.
    """

    width: int
    height: int
    depth: int
    pitch: int
    start: int
    has_wide_dac: bool


def linear_picture(look: Look) -> Picture | None:
    """See `picture_sources`: the frame buffer, while the display interface shows it."""
    dispi = look.dispi
    if dispi is None or not dispi.is_enabled or not look.memory.video:
        return None
    mode = LinearMode(*dispi.size, dispi.depth, dispi.pitch, dispi.start, dispi.has_wide_dac)
    palette = bytes(768) if look.vga is None else look.vga.palette
    return picture_of(mode, look.memory.video[0].pages, palette)


def picture_of(mode: LinearMode, memory: mmap | bytes, palette: bytes) -> Picture:
    """What of `memory` is shown. `palette` has the levels of red, green and blue of 256 colours."""
    line = mode.width * _BYTES[mode.depth]
    starts = range(mode.start, mode.start + mode.height * mode.pitch, mode.pitch)
    dots = b"".join([memory[start : start + line] for start in starts])
    if mode.depth == 8:
        levels = bytes(range(256)) if mode.has_wide_dac else _DAC_LEVELS
        planes = [dots.translate(palette[color::3].translate(levels)) for color in range(3)]
    elif mode.depth in (15, 16):
        planes = _of_words(dots, green_bits=mode.depth - 10)
    else:
        step = mode.depth // 8
        planes = [dots[color::step] for color in (2, 1, 0)]
    rgb = bytearray(3 * mode.width * mode.height)
    for color, plane in enumerate(planes):
        rgb[color::3] = plane
    return Picture(mode.width, mode.height, bytes(rgb))


_BYTES: Final = {8: 1, 15: 2, 16: 2, 24: 3, 32: 4}


def _scaled(bits: int) -> bytes:
    """The table from a level of `bits` bits to one of 8, whose lower bits repeat the upper ones."""
    top = (1 << bits) - 1
    levels = [(level & top) << 8 - bits for level in range(256)]
    return bytes(level | level >> bits for level in levels)


_LEVELS: Final = {bits: _scaled(bits) for bits in (5, 6)}
_DAC_LEVELS: Final = bytes((level & 63) << 2 | (level & 1) * 3 for level in range(256))


def _of_words(dots: bytes, *, green_bits: int) -> list[bytes]:
    """Red, green and blue of words: 5 bits of blue lowest, then green, then 5 bits of red."""
    low, high = dots[0::2], dots[1::2]
    red = high.translate(bytes(byte >> green_bits - 3 & 31 for byte in range(256)))
    upper = high.translate(bytes(byte << 3 & (1 << green_bits) - 1 for byte in range(256)))
    lower = low.translate(bytes(byte >> 5 for byte in range(256)))
    green = (int.from_bytes(upper, "little") | int.from_bytes(lower, "little")).to_bytes(len(low), "little")
    return [red.translate(_LEVELS[5]), green.translate(_LEVELS[green_bits]), low.translate(_LEVELS[5])]
