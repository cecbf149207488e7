"""Port 0xCF9 (Intel ICH9 datasheet, RST_CNT), among the ports of PCI's address register; and pvpanic."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Reset, SnapshotError, Stop
from kvmbox.devices.debug.pvpanic import PvPanic
from kvmbox.devices.pci.reset_control import RST_CNT, ResetControl


def write(model: ResetControl, *values: int) -> int:
    """How many resets these writes ask for."""
    for value in values:
        model.write(0, RST_CNT, 1, value)
    return model.take_effects().count(Reset())


@pytest.mark.parametrize("values", [(0x06,), (0x0E,), (0x02, 0x06), (0x04,), (0xFF,)])
def test_rising_reset_bit_resets_once(values: tuple[int, ...]) -> None:
    assert write(ResetControl(), *values) == 1


@pytest.mark.parametrize("values", [(0x00,), (0x02,), (0x0A,), (0xFB,), (0x06, 0x0E), (0x06, 0x06)])
def test_no_second_reset_without_another_edge(values: tuple[int, ...]) -> None:
    assert write(ResetControl(), *values) == (values[0] & 4) // 4


def test_falling_and_rising_again_resets_again() -> None:
    assert write(ResetControl(), 0x06, 0x02, 0x06) == 2


def test_register_reads_back_its_three_bits_and_is_zero_after_a_reset() -> None:
    model = ResetControl()
    write(model, 0xFB)
    assert model.read(0, RST_CNT, 1) == 0x0A
    model.reset(0)
    assert model.read(0, RST_CNT, 1) == 0


@pytest.mark.parametrize(("offset", "size"), [(0, 4), (0, 2), (0, 1), (2, 1), (2, 2), (3, 1), (1, 2), (1, 4)])
def test_accesses_to_the_address_register_of_pci_are_none_to_this_one(offset: int, size: int) -> None:
    model = ResetControl()
    model.write(0, offset, size, 0x0606_0606)
    assert model.take_effects() == []
    assert model.read(0, offset, size) == (1 << 8 * size) - 1
    assert model.read(0, RST_CNT, 1) == 0


def test_snapshot_with_a_bit_that_is_never_set_is_refused() -> None:
    model = ResetControl()
    write(model, 0x0A)
    with pytest.raises(SnapshotError):
        model.restore(ResetControl.magic + b"\x01")
    assert model.read(0, RST_CNT, 1) == 0x0A


def test_pvpanic_tells_the_host_of_events_and_of_nothing_else() -> None:
    model = PvPanic()
    assert model.read(0, 0, 1) == 7
    for value in range(256):
        model.write(0, 0, 1, value)
        assert model.take_effects() == ([Stop()] if value & 7 else [])
