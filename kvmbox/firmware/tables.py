"""All that firmware leaves in memory for a guest, as writes."""

from __future__ import annotations

from kvmbox.firmware.platform import Platform
from kvmbox.lean import Value


class FirmwareTables(Value):
    """`writes` are (guest-physical address, bytes) pairs; `rsdp` is where ACPI's RSDP is, or 0."""

    rsdp: int = 0
    writes: tuple[tuple[int, bytes], ...] = ()


NO_TABLES = FirmwareTables()


def firmware_tables(platform: Platform) -> FirmwareTables:
    """The tables of `platform`."""
    return NO_TABLES
