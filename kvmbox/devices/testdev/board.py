"""The test device on the board."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq


def testdev() -> DeviceSpec:
    """The test device."""
    port = layout.TESTDEV_PORT
    return DeviceSpec(
        "testdev",
        "testdev",
        "pc_testdev",
        ports=(
            AddressRange(port, 9),
            # Not 0xE9, which is the debug console's.
            AddressRange(port + 10, 2, offset=10),
            AddressRange(layout.TESTDEV_IRQ_PORT, layout.TESTDEV_IRQ_COUNT, offset=16),
        ),
        mmio=(AddressRange(layout.TESTDEV_MEMORY, layout.TESTDEV_MEMORY_SIZE, offset=0x1_0000),),
        grants=tuple(Irq(line) for line in range(layout.TESTDEV_IRQ_COUNT)),
        natural_sizes=frozenset({2, 4, 8}),
        on_demand=True,
    )
