"""The keyboard controller on the board."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Input, Irq, Reset
from kvmbox.contract.names import KEYBOARD


def i8042() -> DeviceSpec:
    """The keyboard controller, and port 0x92."""
    return DeviceSpec(
        "i8042",
        "i8042",
        "i8042",
        ports=(
            AddressRange(layout.I8042_DATA_PORT, 1),
            AddressRange(layout.I8042_COMMAND_PORT, 1, offset=1),
            AddressRange(layout.SYSTEM_CONTROL_A_PORT, 1, offset=2),
        ),
        grants=(Irq(layout.I8042_IRQ), Irq(layout.I8042_AUX_IRQ), Reset(), Input(KEYBOARD)),
        on_demand=True,
    )
