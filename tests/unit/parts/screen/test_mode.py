"""What registers, or the BIOS data area, say is shown: always something that can be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.devices.vga.model import VgaText
from kvmbox.parts.screen.mode import CELLS, MODE_3, MOST_COLUMNS, MOST_ROWS, TextMode, mode_of, mode_of_bios
from kvmbox.parts.screen.screen import Screen


def crtc(vga: VgaText, index: int, value: int) -> None:
    vga.write(0, 0x24, 2, index | value << 8)


def area(mode: int = 3, columns: int = 80, page: int = 0, cursor: int = 0, last_row: int = 24) -> bytes:
    """A BIOS data area as a BIOS leaves it."""
    data = bytearray(256)
    data[0x49], data[0x62], data[0x84] = mode, page, last_row
    data[0x4A:0x4C] = columns.to_bytes(2, "little")
    data[0x4E:0x50] = (page * (0x1000 if columns == 80 else 0x800)).to_bytes(2, "little")
    data[0x50 + 2 * page : 0x52 + 2 * page] = cursor.to_bytes(2, "little")
    return bytes(data)


def test_power_on_is_80_by_25_with_a_cursor_at_the_first_character() -> None:
    assert (MODE_3.columns, MODE_3.rows, MODE_3.pitch, MODE_3.start) == (80, 25, 80, 0)
    assert (MODE_3.cursor, MODE_3.cursor_lines, MODE_3.height) == (0, (13, 14), 16)
    assert (MODE_3.base, MODE_3.has_graphics, MODE_3.blinks) == (layout.TEXT_SCREEN, False, True)


def test_height_of_a_character_decides_the_rows() -> None:
    vga = VgaText()
    crtc(vga, 0x09, 0x47)
    assert mode_of(vga).rows == 50
    crtc(vga, 0x11, 0x0E)  # no protection
    crtc(vga, 0x12, 0xDF)
    crtc(vga, 0x07, 0x1F)  # bit 1 is bit 8 of the last line, bit 6 bit 9
    assert mode_of(vga).rows == 480 // 8
    crtc(vga, 0x07, 0x5F)
    assert mode_of(vga).rows == MOST_ROWS


def test_start_cursor_and_offset_count_characters() -> None:
    vga = VgaText()
    for index, value in ((0x0C, 0x01), (0x0D, 0x40), (0x0E, 0x01), (0x0F, 0x91), (0x13, 66)):
        crtc(vga, index, value)
    mode = mode_of(vga)
    assert (mode.start, mode.cursor, mode.pitch) == (320, 401, 132)
    crtc(vga, 0x0A, 0x2D)
    assert mode_of(vga).cursor is None
    crtc(vga, 0x0C, 0xFF)
    assert mode_of(vga).start < CELLS


def test_monochrome_memory_is_at_b0000() -> None:
    vga = VgaText()
    vga.write(0, 0x1E, 2, 0x06 | 0x0A << 8)
    assert mode_of(vga).base == layout.MONOCHROME_SCREEN


def test_bios_tells_columns_page_and_cursor() -> None:
    assert mode_of_bios(area()) == MODE_3
    mode = mode_of_bios(area(mode=1, columns=40, page=2, cursor=0x0305))
    assert (mode.columns, mode.pitch, mode.start, mode.cursor) == (40, 40, 0x800, 0x800 + 3 * 40 + 5)
    assert mode_of_bios(area(mode=7)).base == layout.MONOCHROME_SCREEN


@pytest.mark.parametrize(
    "damage", [{"mode": 0x13}, {"columns": 132}, {"page": 8}, {"last_row": 49}, {"mode": 1}], ids=str
)
def test_area_that_no_bios_leaves_is_mode_3(damage: dict[str, int]) -> None:
    assert mode_of_bios(area(**damage)) == MODE_3


def check(mode: TextMode) -> None:
    """Whatever it is, it makes a screen."""
    assert 1 <= mode.columns <= MOST_COLUMNS
    assert 1 <= mode.rows <= MOST_ROWS
    assert mode.pitch >= 1
    screen = Screen(bytes(range(256)) * 128, mode)
    assert all(len(codes) == mode.columns for codes in screen.codes)
    assert all(row.isprintable() for row in screen.rows)
    cursor = screen.cursor
    assert cursor is None or (cursor.row < mode.rows and cursor.column < mode.columns)
    assert screen.as_json()["columns"] == mode.columns


def test_all_ones_make_a_screen() -> None:
    vga = VgaText()
    for index in (0x11, *range(0x19)):
        crtc(vga, index, 0x7F if index == 0x11 else 0xFF)
    check(mode_of(vga))
    assert (mode_of(vga).columns, mode_of(vga).rows) == (MOST_COLUMNS, 1024 // 32)


CRTC_WRITES = st.tuples(
    st.just(0x24), st.builds(lambda i, v: i | v << 8, st.integers(0, 24), st.integers(0, 255))
)


@given(st.lists(st.tuples(st.integers(0, 0x2F), st.integers(0, 0xFFFF)) | CRTC_WRITES, max_size=60))
def test_any_registers_make_a_screen(writes: list[tuple[int, int]]) -> None:
    vga = VgaText()
    crtc(vga, 0x11, 0)
    for offset, value in writes:
        vga.write(0, offset, 2, value)
    check(mode_of(vga))


@given(st.binary(min_size=256, max_size=256))
def test_any_data_area_makes_a_screen(data: bytes) -> None:
    check(mode_of_bios(data))
