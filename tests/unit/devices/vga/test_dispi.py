"""The display interface of Bochs: registers, what is shown, and which effects they have."""

from __future__ import annotations

import pytest

from kvmbox.contract.bulk_data import FrameBuffer
from kvmbox.contract.model import SnapshotError
from kvmbox.devices.vga.dispi import (
    BANK,
    BPP,
    DAC_8_BITS,
    DATA_LOW,
    DATA_PORT,
    ENABLE,
    ENABLED,
    GETCAPS,
    ID,
    INDEX_PORT,
    LINEAR,
    MEMORY,
    NO_CLEAR,
    VIDEO_MEMORY_64K,
    VIRT_HEIGHT,
    VIRT_WIDTH,
    X_OFFSET,
    XRES,
    Y_OFFSET,
    YRES,
    VbeDispi,
)


def put(dispi: VbeDispi, index: int, value: int) -> None:
    dispi.write(0, INDEX_PORT, 2, index)
    dispi.write(0, DATA_PORT, 2, value)


def get(dispi: VbeDispi, index: int) -> int:
    dispi.write(0, INDEX_PORT, 2, index)
    return dispi.read(0, DATA_PORT, 2)


def enabled(width: int, height: int, depth: int, flags: int = 0) -> VbeDispi:
    dispi = VbeDispi()
    for index, value in ((XRES, width), (YRES, height), (BPP, depth), (ENABLE, ENABLED | LINEAR | flags)):
        put(dispi, index, value)
    return dispi


def test_power_on_shows_nothing_and_identifies_itself() -> None:
    dispi = VbeDispi()
    assert get(dispi, ID) == 0xB0C5
    assert get(dispi, VIDEO_MEMORY_64K) == 256
    assert (dispi.is_enabled, dispi.bank, dispi.take_effects()) == (False, None, [])


@pytest.mark.parametrize(("written", "read"), [(0xB0BF, 0xB0C5), (0xB0C0, 0xB0C0), (0xB0C6, 0xB0C5)])
def test_identification_can_be_one_of_those_that_exist(written: int, read: int) -> None:
    dispi = VbeDispi()
    put(dispi, ID, written)
    assert get(dispi, ID) == read


@pytest.mark.parametrize(("depth", "pitch"), [(8, 640), (15, 1280), (16, 1280), (24, 1920), (32, 2560)])
def test_mode_has_lines_of_whole_dots(depth: int, pitch: int) -> None:
    dispi = enabled(640, 480, depth)
    assert (dispi.size, dispi.depth, dispi.pitch, dispi.start) == ((640, 480), depth, pitch, 0)
    assert not dispi.has_wide_dac


@pytest.mark.parametrize("depth", [0, 1, 4, 12, 64])
def test_depth_that_is_not_there_counts_as_8(depth: int) -> None:
    assert get(enabled(640, 480, depth), BPP) == 8


def test_enabling_clears_what_is_shown_unless_it_must_not() -> None:
    assert enabled(64, 10, 32).take_effects() == [FrameBuffer(0, 1, 64 * 10 * 4)]
    assert enabled(64, 10, 32, NO_CLEAR).take_effects() == [FrameBuffer(0, 1, 0)]


def test_bank_is_shown_at_once_while_enabled_and_ram_when_that_ends() -> None:
    dispi = enabled(640, 480, 8)
    dispi.take_effects()
    put(dispi, BANK, 256 + 3)
    put(dispi, ENABLE, 0)
    put(dispi, BANK, 5)
    assert dispi.take_effects() == [FrameBuffer(3, 1, 0), FrameBuffer(3, 0, 0)]
    assert dispi.bank is None


def test_start_is_at_the_offsets_in_a_wider_screen() -> None:
    dispi = enabled(640, 480, 16)
    put(dispi, VIRT_WIDTH, 700)
    put(dispi, X_OFFSET, 9)
    put(dispi, Y_OFFSET, 7)
    assert get(dispi, VIRT_WIDTH) == 696
    assert (dispi.pitch, dispi.start) == (1392, 7 * 1392 + 18)
    assert get(dispi, VIRT_HEIGHT) == MEMORY // 1392


def test_what_is_shown_is_always_inside_of_the_memory() -> None:
    dispi = enabled(0xFFFF, 0xFFFF, 32)
    for index in (VIRT_WIDTH, X_OFFSET, Y_OFFSET):
        put(dispi, index, 0xFFFF)
        assert dispi.start + dispi.size[1] * dispi.pitch <= MEMORY
    assert dispi.size == (16000, MEMORY // 64000)


def test_smallest_mode_has_eight_dots() -> None:
    assert enabled(0, 0, 8).size == (8, 1)


def test_capabilities_are_read_in_place_of_a_mode() -> None:
    dispi = enabled(640, 480, 8)
    put(dispi, ENABLE, GETCAPS)
    assert [get(dispi, index) for index in (XRES, YRES, BPP)] == [16000, 12000, 32]
    put(dispi, ENABLE, 0)
    assert [get(dispi, index) for index in (XRES, YRES, BPP)] == [640, 480, 8]


def test_wide_dac_is_part_of_the_mode() -> None:
    assert enabled(640, 480, 8, DAC_8_BITS).has_wide_dac


def test_word_at_the_odd_data_port_comes_in_two_bytes() -> None:
    dispi = VbeDispi()
    dispi.write(0, INDEX_PORT, 2, XRES)
    dispi.write(0, DATA_LOW, 1, 0x20)
    assert get(dispi, XRES) == 0
    dispi.write(0, DATA_PORT, 1, 0x03)
    assert (dispi.read(0, DATA_LOW, 1), dispi.read(0, DATA_PORT, 1)) == (0x20, 0x03)
    assert get(dispi, XRES) == 0x320


def test_doubleword_is_index_and_data() -> None:
    dispi = VbeDispi()
    dispi.write(0, INDEX_PORT, 4, YRES | 600 << 16)
    assert get(dispi, YRES) == 600
    assert dispi.read(0, INDEX_PORT, 4) == YRES | 600 << 16


def test_other_accesses_reach_no_register() -> None:
    dispi = VbeDispi()
    for offset, size in ((0, 1), (3, 1), (1, 2), (2, 4), (0, 8)):
        dispi.write(0, offset, size, 0x5555)
        assert dispi.read(0, offset, size) == (1 << 8 * size) - 1
    assert dispi.snapshot() == VbeDispi().snapshot()


def test_reset_is_power_on() -> None:
    dispi = enabled(640, 480, 8)
    dispi.take_effects()
    dispi.reset(0)
    assert dispi.snapshot() == VbeDispi().snapshot()
    assert dispi.take_effects() == []


def test_snapshot_goes_on_where_it_was_without_an_effect() -> None:
    dispi = enabled(800, 600, 24)
    put(dispi, BANK, 7)
    dispi.write(0, DATA_LOW, 1, 9)
    dispi.take_effects()
    other = VbeDispi()
    other.restore(dispi.snapshot())
    assert other.snapshot() == dispi.snapshot()
    assert (other.size, other.bank, other.take_effects()) == ((800, 600), 7, [])


@pytest.mark.parametrize(("index", "value"), [(ID, 0), (BANK, 256), (XRES, 641), (YRES, 0), (BPP, 4)])
def test_snapshot_that_cannot_be_is_refused(index: int, value: int) -> None:
    dispi = enabled(640, 480, 32)
    state = bytearray(dispi.snapshot())
    state[7 + 2 * index : 9 + 2 * index] = value.to_bytes(2, "little")
    before = dispi.snapshot()
    with pytest.raises(SnapshotError):
        dispi.restore(bytes(state))
    with pytest.raises(SnapshotError):
        dispi.restore(before[:-1])
    assert dispi.snapshot() == before
