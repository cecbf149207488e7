"""The 8254 on the board, and port 0x61."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, FreeRunning, Irq
from kvmbox.devices.pit import input_clock


def pit() -> DeviceSpec:
    """The 8254, whose counter 0 runs from power-on."""
    return DeviceSpec(
        "PIT",
        "pit",
        "pit_8254",
        ports=(
            AddressRange(layout.PIT_PORT, layout.PIT_PORT_COUNT),
            AddressRange(layout.SYSTEM_CONTROL_B_PORT, 1, offset=layout.PIT_PORT_COUNT),
        ),
        parameters={"announce": 1},
        grants=(Irq(layout.PIT_IRQ),),
        on_demand=True,
        # From power-on, counter 0 is in mode 3. The built-in BIOS writes mode 2, and 0, which is 65536.
        runs=FreeRunning(input_clock.CLK_HZ, 0x10000, 0x8000, ((3, b"\x34"), (0, b"\0\0")), 0xFFFF),
    )
