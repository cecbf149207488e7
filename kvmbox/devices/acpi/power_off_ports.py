"""Ports at which other machines have their power management: the value with which their guests power off.

A guest without ACPI tables often writes the power-off values of several machines, one after another. Each
counts at its own port, as a word or a double word of exactly this value:

- Bochs, and QEMU before version 2.0, have the PM1a control register at 0xb004: 0x2000 is SLP_EN with SLP_TYP
  0.
- VirtualBox has it at 0x4004: 0x3400 is SLP_EN with SLP_TYP 5.

Everything else is as if there were nothing: reads give ones, writes are dropped.
"""

from __future__ import annotations

from kvmbox.contract.model import Stop
from kvmbox.contract.port_model import PortModel
from kvmbox.contract.stop_values import BOCHS, POWER_OFF  # noqa: F401 - BOCHS: the docstring's example


class PowerOffPorts(PortModel):
    """See the module. It has no state.

    >>> ports = PowerOffPorts()
    >>> ports.write(0, BOCHS, 2, 0x2000)
    >>> ports.take_effects()
    [Stop()]
    """

    __slots__ = ()

    magic: bytes = b"OFF\x01"
    port_count: int = 8

    def _read_byte(self, offset: int) -> int:
        return 0xFF

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if size in (2, 4) and POWER_OFF.get(offset) == value:
            self._effects.append(Stop())
