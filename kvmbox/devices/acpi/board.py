"""Power management on the board, and the ports of other machines."""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.contract import stop_values
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Irq, StopClean, Suspend, WrittenByte


def power_management() -> DeviceSpec:
    """Named by the block that its registers are: PM1a."""
    return DeviceSpec(
        "PM",
        "pm",
        "acpi_pm",
        ports=(AddressRange(layout.PM1_EVENT_PORT, layout.PM_PORT_COUNT),),
        grants=(
            Irq(layout.SCI_IRQ),
            StopClean(
                (
                    WrittenByte(
                        stop_values.PM1_CNT + 1,
                        (stop_values.SLP_EN | stop_values.S5 << stop_values.SLP_TYP_SHIFT) >> 8,
                        (stop_values.SLP_EN | stop_values.SLP_TYP) >> 8,
                    ),
                    WrittenByte(stop_values.PM1_STS, stop_values.CLOUD_HYPERVISOR_OFF),
                )
            ),
            Suspend(),
        ),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )


def power_off_ports() -> DeviceSpec:
    """The ports of Bochs and VirtualBox."""
    return DeviceSpec(
        "power-off",
        "pm",
        "power_off_ports",
        ports=(
            AddressRange(layout.BOCHS_POWER_OFF_PORT, 4),
            AddressRange(layout.VIRTUALBOX_POWER_OFF_PORT, 4, offset=4),
        ),
        grants=(
            StopClean(
                tuple(WrittenByte(offset + 1, value >> 8) for offset, value in stop_values.POWER_OFF.items())
            ),
        ),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )
