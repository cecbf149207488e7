"""The HPET on the board."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, ReplacingIrq


def hpet() -> DeviceSpec:
    """The HPET: its first two pins replace the interrupts of PIT and RTC."""
    return DeviceSpec(
        "HPET",
        "hpet",
        "hpet",
        parameters={"announce": 1},
        mmio=(AddressRange(layout.HPET_BASE, layout.HPET_SIZE),),
        grants=(
            ReplacingIrq(layout.PIT_IRQ),
            ReplacingIrq(layout.RTC_IRQ),
            *(Irq(gsi) for gsi in layout.HPET_IRQS),
        ),
        natural_sizes=frozenset({4, 8}),
        on_demand=True,
    )
