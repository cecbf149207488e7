"""The graphics of a VGA as pixels: shift modes, addresses, split, panning, palette."""

from __future__ import annotations

from typing import Final

import pytest

from kvmbox.base import layout
from kvmbox.devices.vga.model import VgaText
from kvmbox.parts.screen.picture import Picture
from kvmbox.parts.screen.vga_picture import picture_of_vga

CRTC, SEQUENCER, GRAPHICS, ATTRIBUTE = 0x3D4, 0x3C4, 0x3CE, 0x3C0
SMALL: Final = (  # 16 dots, 4 lines, of planes at consecutive addresses
    *((CRTC, 0x11, 0), (CRTC, 0x01, 1), (CRTC, 0x12, 3), (CRTC, 0x07, 0x10), (CRTC, 0x09, 0x40)),
    *((CRTC, 0x13, 1), (CRTC, 0x14, 0), (CRTC, 0x17, 0xE3), (CRTC, 0x18, 0xFF)),
    *((SEQUENCER, 1, 1), (GRAPHICS, 5, 0), (GRAPHICS, 6, 5)),
    *((ATTRIBUTE, index, index) for index in range(16)),
    *((ATTRIBUTE, 0x10, 1), (ATTRIBUTE, 0x12, 0x0F), (ATTRIBUTE, 0x13, 0), (ATTRIBUTE, 0x14, 0)),
)


def vga_with(*registers: tuple[int, int, int]) -> VgaText:
    """With these registers; colour n of the DAC has n as its level of blue, up to 63."""
    vga = VgaText()

    def out(port: int, value: int) -> None:
        vga.write(0, port - layout.VGA_FIRST_PORT, 1, value)

    for port, index, value in (*SMALL, *registers):
        if port == ATTRIBUTE:
            vga.read(0, 0x3DA - layout.VGA_FIRST_PORT, 1)
            out(port, index)
            out(port, value)
            out(port, 0x20)
        else:
            out(port, index)
            out(port + 1, value)
    out(0x3C8, 0)
    for color in range(256):
        for level in (0, 0, color & 0x3F):
            out(0x3C9, level)
    return vga


def planes_with(**words: tuple[int, ...]) -> bytes:
    """All planes, with the four bytes of some addresses (`at_ADDRESS`, in hexadecimal)."""
    planes = bytearray(1 << 18)
    for name, values in words.items():
        at = 4 * int(name.removeprefix("at_"), 16)
        planes[at : at + len(values)] = bytes(values)
    return bytes(planes)


def drawn(planes: bytes, *registers: tuple[int, int, int]) -> Picture:
    picture = picture_of_vga(vga_with(*registers), planes)
    assert picture is not None
    return picture


def row(picture: Picture, y: int) -> list[int]:
    """The colours of a line, by their levels of blue."""
    wide = [level << 2 | (level & 1) * 3 for level in range(64)]
    return [wide.index(picture.pixel(x, y)[2]) for x in range(picture.width)]


def test_text_has_no_picture() -> None:
    assert picture_of_vga(VgaText(), bytes(1 << 18)) is None


def test_each_plane_has_a_bit_of_a_dot() -> None:
    picture = drawn(planes_with(at_0=(0x80, 0xC0, 0xE0, 0xF1)))
    assert (picture.width, picture.height) == (16, 4)
    assert row(picture, 0) == [15, 14, 12, 8, 0, 0, 0, 8] + [0] * 8


def test_rows_are_twice_the_offset_apart() -> None:
    picture = drawn(planes_with(at_2=(0xFF,), at_4=(0, 0xFF)))
    assert [row(picture, y)[0] for y in range(4)] == [0, 1, 2, 0]


def test_start_address_is_where_the_first_row_is() -> None:
    picture = drawn(planes_with(at_1234=(0xFF,)), (CRTC, 0x0C, 0x12), (CRTC, 0x0D, 0x33))
    assert row(picture, 0) == [0] * 8 + [1] * 8


@pytest.mark.parametrize(
    ("scan", "expected"), [(0x40, [1, 2, 0, 0]), (0x41, [1, 1, 2, 2]), (0xC0, [1, 1, 2, 2])]
)
def test_lines_are_repeated_by_scan_lines_and_by_double_scan(scan: int, expected: list[int]) -> None:
    picture = drawn(planes_with(at_0=(0xFF,), at_2=(0, 0xFF)), (CRTC, 0x09, scan))
    assert [row(picture, y)[0] for y in range(4)] == expected


def test_below_the_line_of_comparison_the_picture_begins_at_address_0() -> None:
    planes = planes_with(at_0=(0xFF,), at_100=(0, 0xFF), at_102=(0, 0xFF), at_2=(0, 0, 0xFF))
    split = ((CRTC, 0x0C, 1), (CRTC, 0x18, 1), (CRTC, 0x07, 0), (CRTC, 0x09, 0))
    assert [row(drawn(planes, *split), y)[0] for y in range(4)] == [2, 2, 1, 4]


def test_256_colours_are_two_dots_of_each_plane_in_turn() -> None:
    picture = drawn(planes_with(at_0=(1, 2, 3, 4), at_1=(5, 6, 7, 8)), (GRAPHICS, 5, 0x40))
    assert row(picture, 0) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8]


def test_panning_of_256_colours_is_a_pixel_for_two() -> None:
    planes = planes_with(at_0=(1, 2, 3, 4), at_1=(5, 6, 7, 8), at_2=(9, 10))
    picture = drawn(planes, (GRAPHICS, 5, 0x40), (ATTRIBUTE, 0x13, 2))
    assert row(picture, 0) == [2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]


def test_panning_of_planes_is_a_dot_and_stops_at_the_split_if_it_is_to() -> None:
    planes = planes_with(at_0=(0x40,), at_2=(0x40,))
    for stops, expected in ((0, [1, 1]), (1 << 5, [1, 0])):
        picture = drawn(
            planes,
            *((CRTC, 0x18, 0), (CRTC, 0x07, 0), (CRTC, 0x09, 0)),
            *((ATTRIBUTE, 0x13, 1), (ATTRIBUTE, 0x10, 1 | stops)),
        )
        assert [row(picture, y)[0] for y in (0, 1)] == expected


def test_pairs_of_bits_are_the_dots_of_a_cga() -> None:
    picture = drawn(planes_with(at_0=(0b00011011, 0b11100100)), (GRAPHICS, 5, 0x30))
    assert row(picture, 0)[:8] == [0, 1, 2, 3, 3, 2, 1, 0]


def test_scan_line_of_a_row_is_address_bit_13_in_cga_modes() -> None:
    planes = planes_with(at_0=(0xFF,), at_2000=(0, 0xFF), at_2=(0, 0, 0xFF))
    picture = drawn(planes, (CRTC, 0x17, 0xE2), (CRTC, 0x09, 0x41))
    assert [row(picture, y)[0] for y in range(4)] == [1, 2, 4, 0]


def test_words_are_counted_at_every_second_address_and_doublewords_at_every_fourth() -> None:
    planes = planes_with(at_1=(0xFF,), at_2=(0, 0xFF), at_4=(0, 0, 0xFF))
    assert row(drawn(planes, (CRTC, 0x17, 0xA3)), 0)[8] == 2
    assert row(drawn(planes, (CRTC, 0x14, 0x40)), 0)[8] == 4


def test_half_the_dot_clock_doubles_the_width() -> None:
    picture = drawn(planes_with(at_0=(0xA0,)), (SEQUENCER, 1, 9))
    assert picture.width == 32
    assert row(picture, 0)[:8] == [1, 1, 0, 0, 1, 1, 0, 0]


def test_palette_plane_enable_and_colour_select_choose_the_colour() -> None:
    planes = planes_with(at_0=(0xFF, 0xFF))
    assert row(drawn(planes, (ATTRIBUTE, 3, 0x2A)), 0)[0] == 0x2A
    assert row(drawn(planes, (ATTRIBUTE, 0x12, 0x02)), 0)[0] == 2
    selected = drawn(planes, (ATTRIBUTE, 0x10, 0x81), (ATTRIBUTE, 0x14, 0x02))
    assert row(selected, 0)[0] == 0x23


def test_screen_that_is_off_is_black() -> None:
    assert drawn(planes_with(at_0=(0xFF,)), (SEQUENCER, 1, 0x21)).is_blank


def test_registers_beyond_reason_make_a_bounded_picture() -> None:
    ones = ((CRTC, index, 0xFF) for index in range(0x18) if index != 0x11)
    picture = drawn(bytes(1 << 18), *ones, (SEQUENCER, 1, 0x0F))
    assert (picture.width, picture.height) == (4096, 1024)
