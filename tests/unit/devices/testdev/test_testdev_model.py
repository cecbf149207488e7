"""kvm-unit-tests' test device, as QEMU's pc-testdev does it."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import IrqLine
from kvmbox.devices.testdev.model import LINES, MEMORY, MEMORY_END, PcTestdev


@pytest.mark.parametrize("base", [0, 8])
def test_scratch_register_keeps_bytes_words_and_longs(base: int) -> None:
    model = PcTestdev()
    model.write(0, base, 4, 0x1234_5678)
    assert [model.read(0, base + index, 1) for index in range(4)] == [0x78, 0x56, 0x34, 0x12]
    assert model.read(0, base, 2) == 0x5678
    model.write(0, base + 2, 2, 0xBEEF)
    model.write(0, base, 1, 0xFF)
    assert model.read(0, 8 - base, 4) == 0xBEEF_56FF  # both places are one register


def test_flush_reads_as_zero_and_does_nothing() -> None:
    model = PcTestdev()
    before = model.snapshot()
    model.write(0, 4, 4, 0x1000)
    assert model.snapshot() == before
    assert model.read(0, 4, 4) == 0


def test_line_follows_what_is_written_and_tells_edges_once() -> None:
    model = PcTestdev()
    for line in range(24):
        for value in (0, 1, 0x80, 0):
            model.write(0, LINES + line, 1, value)
        assert model.take_effects() == [IrqLine(line, 1), IrqLine(line, 0)]
        assert model.read(0, LINES + line, 1) == 0
    model.write(0, LINES + 24, 1, 1)
    assert model.take_effects() == []


def test_memory_is_bytes_at_any_address_and_width() -> None:
    model = PcTestdev()
    model.write(0, MEMORY + 1, 2, 0xBEEF)
    assert model.read(0, MEMORY, 4) == 0x00BE_EF00
    model.write(0, MEMORY_END - 8, 8, 0x0102_0304_0506_0708)
    assert model.read(0, MEMORY_END - 8, 8) == 0x0102_0304_0506_0708
    assert model.read(0, MEMORY_END - 1, 1) == 0x01
    assert model.read(0, MEMORY_END, 1) == 0xFF


def test_access_across_the_end_of_memory_is_bytes() -> None:
    model = PcTestdev()
    model.write(0, MEMORY_END - 2, 4, 0x4433_2211)
    assert model.read(0, MEMORY_END - 2, 4) == 0xFFFF_2211


def test_reset_clears_it_all_and_lowers_lines() -> None:
    model = PcTestdev()
    model.write(0, 0, 4, 1)
    model.write(0, MEMORY, 4, 1)
    model.write(0, LINES + 5, 1, 1)
    model.take_effects()
    model.reset(0)
    assert model.take_effects() == [IrqLine(5, 0)]
    assert model.snapshot() == PcTestdev().snapshot()


def test_restored_device_has_memory_register_and_lines() -> None:
    first, second = PcTestdev(), PcTestdev()
    first.write(0, 0, 4, 0xCAFE)
    first.write(0, MEMORY + 77, 1, 9)
    first.write(0, LINES + 23, 1, 1)
    second.restore(first.snapshot())
    assert second.take_effects() == []
    second.write(0, LINES + 23, 1, 1)
    assert second.take_effects() == []  # it is high already
    assert (second.read(0, 0, 4), second.read(0, MEMORY + 77, 1)) == (0xCAFE, 9)
