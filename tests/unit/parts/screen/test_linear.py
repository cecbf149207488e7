"""Pictures of linear frame buffers: the colours of each depth, and which dots are shown."""

from __future__ import annotations

import struct

import pytest

from kvmbox.parts.screen.linear import LinearMode, picture_of

GRAY = bytes(value for index in range(256) for value in (index & 63, index >> 2, 63))


def two(depth: int, dots: bytes, palette: bytes = bytes(768), *, wide: bool = False) -> list[tuple[int, ...]]:
    """The colours of the two dots of a screen."""
    picture = picture_of(LinearMode(2, 1, depth, len(dots), 0, wide), dots, palette)
    return [picture.pixel(0, 0), picture.pixel(1, 0)]


def test_32_bits_are_blue_green_red_and_nothing() -> None:
    assert two(32, bytes([1, 2, 3, 255, 4, 5, 6, 0])) == [(3, 2, 1), (6, 5, 4)]


def test_24_bits_are_blue_green_red() -> None:
    assert two(24, bytes([1, 2, 3, 4, 5, 6])) == [(3, 2, 1), (6, 5, 4)]


def test_16_bits_are_5_of_red_6_of_green_5_of_blue_with_repeated_bits() -> None:
    dots = struct.pack("<2H", 0b10000_100000_00001, 0b11111_011111_11111)
    assert two(16, dots) == [(132, 130, 8), (255, 125, 255)]


def test_15_bits_are_5_of_each_and_one_of_nothing() -> None:
    dots = struct.pack("<2H", 0b1_10000_10000_00001, 0b0_11111_01111_11111)
    assert two(15, dots) == [(132, 132, 8), (255, 123, 255)]


def test_8_bits_name_a_colour_whose_levels_have_6_bits() -> None:
    assert two(8, bytes([1, 255]), GRAY) == [(7, 0, 255), (255, 255, 255)]


def test_8_bits_name_a_colour_whose_levels_have_8_bits_if_the_dac_is_wide() -> None:
    palette = bytearray(768)
    palette[3:6] = 200, 100, 50
    assert two(8, bytes([1, 0]), bytes(palette), wide=True) == [(200, 100, 50), (0, 0, 0)]


@pytest.mark.parametrize("start", [0, 3])
def test_lines_begin_at_the_start_and_a_pitch_apart(start: int) -> None:
    memory = bytes(range(64))
    palette = bytes(value for index in range(256) for value in (index, 0, 0))
    picture = picture_of(LinearMode(2, 3, 8, 10, start, has_wide_dac=True), memory, palette)
    lines = [[picture.pixel(x, y)[0] for x in range(2)] for y in range(3)]
    assert lines == [[start + 10 * y, start + 10 * y + 1] for y in range(3)]
