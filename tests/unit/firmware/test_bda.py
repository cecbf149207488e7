"""The BIOS data areas, read at the absolute addresses that kernels use."""

from __future__ import annotations

import pytest

from tests.support.firmware_memory import firmware_memory


def test_ebda_is_the_last_kib_of_conventional_memory_and_says_its_size() -> None:
    memory = firmware_memory()

    ebda = memory.number(0x40E, 2) << 4
    assert ebda == 0x9FC00
    assert memory.number(ebda, 1) == 1
    assert memory.number(0x413, 2) * 1024 == ebda


@pytest.mark.parametrize(
    ("names", "bases"),
    [
        ((), [0, 0, 0, 0]),
        (("COM1",), [0x3F8, 0, 0, 0]),
        (("COM2", "COM1"), [0x3F8, 0x2F8, 0, 0]),
        (("COM1", "COM3", "MMIO"), [0x3F8, 0x3E8, 0, 0]),
        (("COM1", "COM2", "COM3", "COM4"), [0x3F8, 0x2F8, 0x3E8, 0x2E8]),
    ],
)
def test_com_ports_are_listed_without_gaps_and_counted(names: tuple[str, ...], bases: list[int]) -> None:
    memory = firmware_memory(serial_ports=names)

    assert [memory.number(0x400 + 2 * number, 2) for number in range(4)] == bases
    assert memory.number(0x410, 2) >> 9 & 7 == sum(base != 0 for base in bases)


def test_equipment_is_an_fpu_a_colour_screen_and_no_drive() -> None:
    equipment = firmware_memory().number(0x410, 2)
    assert equipment & 0b1 == 0  # floppy drives
    assert equipment & 0b10  # FPU
    assert equipment >> 4 & 0b11 == 0b10  # 80 columns, colour
    assert firmware_memory().number(0x475, 1) == 0  # hard disks


def test_keyboard_buffer_is_empty_and_within_the_area() -> None:
    memory = firmware_memory()
    assert memory.number(0x41A, 2) == memory.number(0x41C, 2) == memory.number(0x480, 2) == 0x1E
    assert memory.number(0x482, 2) == 0x3E


def test_text_mode_is_3_with_80_columns_and_25_rows() -> None:
    memory = firmware_memory()
    assert memory.number(0x449, 1) == 3
    assert memory.number(0x44A, 2) == 80
    assert memory.number(0x484, 1) + 1 == 25
    assert memory.number(0x463, 2) == 0x3D4
