"""The power-off values of other machines: each at its own port, with its own width."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Stop
from kvmbox.contract.stop_values import BOCHS, VIRTUALBOX
from kvmbox.devices.acpi.power_off_ports import PowerOffPorts


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@pytest.mark.parametrize("value", [0x2000, 0x3400, 0x20, 0x2400, 0x12000, 0])
@pytest.mark.parametrize("offset", range(8))
def test_power_off_takes_the_value_of_the_port_as_a_word_or_a_double_word(
    offset: int, value: int, size: int
) -> None:
    ports = PowerOffPorts()
    ports.write(0, offset, size, value)
    wanted = (offset, value) in ((BOCHS, 0x2000), (VIRTUALBOX, 0x3400)) and size in (2, 4)
    assert ports.take_effects() == ([Stop()] if wanted else [])


def test_power_off_in_two_bytes_is_none() -> None:
    ports = PowerOffPorts()
    ports.write(0, 0, 1, 0x00)
    ports.write(0, 1, 1, 0x20)
    assert ports.take_effects() == []


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ports_read_as_if_there_were_nothing(size: int) -> None:
    assert PowerOffPorts().read(0, 0, size) == (1 << 8 * size) - 1
