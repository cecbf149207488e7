"""What a guest writes to end its run, by device: the VMM checks each `Stop` of a model against it."""

from __future__ import annotations

from kvmbox.base.layout import SLEEP_TYPES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# PM1 control (ACPI 6.5, 4.8.4.2).
PM1_CNT: Final = 0x4
SLP_TYP_SHIFT: Final = 10
SLP_TYP: Final = 0b111 << SLP_TYP_SHIFT
SLP_EN: Final = 1 << 13

S5: Final = SLEEP_TYPES["S5"]
"""The value of SLP_TYP, which the firmware's DSDT tells."""

PM1_STS: Final = 0x0
CLOUD_HYPERVISOR_OFF: Final = 0x34
"""Cloud Hypervisor's guests stop with this byte at the first port of the event block: SLP_TYP 5 and SLP_EN of
its own control register. As a write to PM1 status it would clear reserved bits.
"""

BOCHS: Final = 0
VIRTUALBOX: Final = 4
"""Offsets of the registers of `power_off_ports`, which the board wires to their ports."""
POWER_OFF: Final = {BOCHS: 0x2000, VIRTUALBOX: 0x3400}
"""The value that powers off, by the offset of its register."""

SHUTDOWN: Final = b"Shutdown"
"""What stops the machine, a byte at a time, at the port of `devices.debug.model.ShutdownPort`."""

PANICKED: Final = 1 << 0
CRASH_LOADED: Final = 1 << 1
PANIC_SHUTDOWN: Final = 1 << 2
"""The events of pvpanic (QEMU, docs/specs/pvpanic.rst)."""
