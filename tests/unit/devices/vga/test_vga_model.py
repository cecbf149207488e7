"""The registers of a VGA in text modes (IBM PS/2 Hardware Interface Technical Reference, Video)."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import SnapshotError
from kvmbox.devices.vga.model import DISPLAY_NS, DISPLAYED_LINES, LINE_NS, LINES, VgaText, input_status_1

OFF = 0x3B0  # ports are offsets from here


def out(vga: VgaText, port: int, value: int, size: int = 1) -> None:
    vga.write(0, port - OFF, size, value)


def into(vga: VgaText, port: int, now: int = 0) -> int:
    return vga.read(now, port - OFF, 1)


def indexed(vga: VgaText, port: int, index: int) -> int:
    out(vga, port, index)
    return into(vga, port + 1)


def test_power_on_is_text_mode_3_as_a_bios_leaves_it() -> None:
    vga = VgaText()
    assert into(vga, 0x3CC) == 0x67
    assert [indexed(vga, 0x3D4, index) for index in (0x01, 0x09, 0x0A, 0x0B, 0x12, 0x13)] == [
        *(79, 0x4F, 0x0D, 0x0E, 0x8F, 40)
    ]
    assert [indexed(vga, 0x3C4, index) for index in range(5)] == [3, 0, 3, 0, 2]
    assert [indexed(vga, 0x3CE, index) for index in range(9)] == [0, 0, 0, 0, 0, 0x10, 0x0E, 0, 0xFF]
    assert (vga.start, vga.cursor, vga.memory_map) == (0, 0, 3)
    assert (vga.has_graphics, vga.blinks) == (False, True)
    assert vga.colors[:3] == [(0, 0, 0), (0, 0, 42), (0, 42, 0)]
    assert (vga.colors[6], vga.colors[14], vga.colors[15]) == ((42, 21, 0), (63, 63, 21), (63, 63, 63))


def test_cursor_and_start_are_two_bytes_each_written_singly_or_as_words() -> None:
    vga = VgaText()
    for index, value in ((0x0E, 0x07), (0x0F, 0xCF), (0x0C, 0x01)):
        out(vga, 0x3D4, index)
        out(vga, 0x3D5, value)
    out(vga, 0x3D4, 0x40 << 8 | 0x0D, size=2)
    assert (vga.cursor, vga.start) == (0x07CF, 0x0140)
    assert into(vga, 0x3D4) == 0x0D
    assert into(vga, 0x3D5) == 0x40


def test_protected_registers_change_in_one_bit_only() -> None:
    vga = VgaText()
    for index in range(8):
        out(vga, 0x3D4, index | 0xEF << 8, size=2)
    assert [indexed(vga, 0x3D4, index) for index in (0, 1, 7)] == [0x5F, 0x4F, 0x0F]
    out(vga, 0x3D4, 0x11 | 0x0E << 8, size=2)
    out(vga, 0x3D4, 0x01 | 0x27 << 8, size=2)
    assert indexed(vga, 0x3D4, 1) == 0x27


def test_misc_output_moves_the_ports_of_the_crt_controller() -> None:
    vga = VgaText()
    out(vga, 0x3D4, 0x0F)
    assert into(vga, 0x3B4) == into(vga, 0x3BA) == 0xFF
    out(vga, 0x3C2, 0x66 | 0x10)
    assert into(vga, 0x3CC) == 0x66
    assert (into(vga, 0x3B4), into(vga, 0x3D4), into(vga, 0x3DA)) == (0x0F, 0xFF, 0xFF)
    out(vga, 0x3D5, 9)  # where nothing is now
    out(vga, 0x3B5, 5)
    assert vga.cursor == 5


def test_attribute_controller_takes_index_and_data_in_turn_until_status_is_read() -> None:
    vga = VgaText()
    out(vga, 0x3C0, 0x10)
    assert into(vga, 0x3C0) == 0x10
    out(vga, 0x3C0, 0xFF)
    assert into(vga, 0x3C1) == 0xEF
    out(vga, 0x3C0, 0x14)
    into(vga, 0x3DA)
    out(vga, 0x3C0, 0x01)  # an index again
    out(vga, 0x3C0, 0xFF)
    assert into(vga, 0x3C1) == 0x3F
    assert indexed(vga, 0x3C4, 0) == 3
    into(vga, 0x3BA)  # the status of the other place changes nothing
    out(vga, 0x3C0, 0x14)
    into(vga, 0x3BA)
    out(vga, 0x3C0, 0x05)
    assert into(vga, 0x3C1) == 0x05


def test_mode_control_decides_graphics_and_blinking() -> None:
    vga = VgaText()
    out(vga, 0x3C0, 0x30)
    out(vga, 0x3C0, 0x05)
    assert (vga.has_graphics, vga.blinks) == (True, False)
    out(vga, 0x3C0, 0x30)
    out(vga, 0x3C0, 0x04)
    assert not vga.has_graphics
    out(vga, 0x3CE, 0x06 | 0x0B << 8, size=2)
    assert (vga.has_graphics, vga.memory_map) == (True, 2)


@pytest.mark.parametrize(
    ("port", "index", "mask"),
    [(0x3C4, 1, 0x3D), (0x3C4, 4, 0x0E), (0x3CE, 5, 0x7B), (0x3CE, 8, 0xFF), (0x3D4, 0x18, 0xFF)],
)
def test_register_reads_back_the_bits_that_exist(port: int, index: int, mask: int) -> None:
    vga = VgaText()
    out(vga, port, index | 0xFF << 8, size=2)
    assert indexed(vga, port, index) == mask


@pytest.mark.parametrize("port", [0x3C4, 0x3CE, 0x3D4])
def test_index_of_no_register_reads_zero_and_takes_nothing(port: int) -> None:
    vga = VgaText()
    last = {0x3C4: 7, 0x3CE: 15, 0x3D4: 0xFF}[port]
    out(vga, port, last | 0x5A << 8, size=2)
    assert into(vga, port) == last
    assert into(vga, port + 1) == 0


def test_dac_takes_colours_whole_and_counts_on() -> None:
    vga = VgaText()
    out(vga, 0x3C8, 255)
    for level in (1, 2, 0xFF, 4, 5):
        out(vga, 0x3C9, level)
    assert into(vga, 0x3C7) == 0
    out(vga, 0x3C7, 255)
    assert into(vga, 0x3C7) == 3
    assert [into(vga, 0x3C9) for _ in range(6)] == [1, 2, 0xFF, 0, 0, 0]  # colour 0 is not complete
    out(vga, 0x3C6, 0x0F)
    assert into(vga, 0x3C6) == 0x0F
    assert vga.colors[8] == (0, 0, 21)  # 0x38 in the palette, of which 8 is left


def test_status_tells_blanks_as_a_function_of_time() -> None:
    vga = VgaText()
    assert into(vga, 0x3DA) == 0
    assert into(vga, 0x3DA, DISPLAY_NS - 1) == 0
    assert into(vga, 0x3DA, DISPLAY_NS) == 1
    assert into(vga, 0x3DA, LINE_NS) == 0
    assert into(vga, 0x3DA, DISPLAYED_LINES * LINE_NS) == 9
    assert into(vga, 0x3DA, LINES * LINE_NS - 1) == 9
    assert into(vga, 0x3DA, LINES * LINE_NS * 10**9) == 0


def test_guest_that_waits_for_the_retrace_meets_it_within_two_frames() -> None:
    seen = [input_status_1(now) & 8 for now in range(0, 2 * LINES * LINE_NS, 1_000_000)]
    assert {0, 8} <= set(seen)


def test_reset_is_power_on_and_snapshot_is_the_whole_state() -> None:
    vga, other = VgaText(), VgaText()
    out(vga, 0x3D4, 0x0F | 9 << 8, size=2)
    out(vga, 0x3C0, 0x10)
    out(vga, 0x3C8, 1)
    out(vga, 0x3C9, 7)
    other.restore(vga.snapshot())
    assert other.snapshot() == vga.snapshot() != VgaText().snapshot()
    out(other, 0x3C0, 0x08)  # data: the flip-flop is part of it
    assert into(other, 0x3C1) == 8
    other.reset(5)
    assert other.snapshot() == VgaText().snapshot()


def test_snapshot_of_a_state_that_cannot_be_is_refused_without_effect() -> None:
    vga = VgaText()
    good = vga.snapshot()
    for damaged in (good[:-1], b"VGA\x01" + good[4:], good[:4] + b"\xff" + good[5:], good[:-1] + b"\xff"):
        with pytest.raises(SnapshotError):
            vga.restore(damaged)
        assert vga.snapshot() == good
