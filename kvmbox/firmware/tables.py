"""All that firmware leaves in memory for a guest, as writes."""

from __future__ import annotations

from typing import Final

from kvmbox import layout
from kvmbox.firmware import acpi, bda, mp_table, smbios
from kvmbox.firmware.area import TableArea
from kvmbox.firmware.platform import Platform
from kvmbox.lean import Value


class FirmwareTables(Value):
    """`writes` are (guest-physical address, bytes) pairs; `rsdp` is where ACPI's RSDP is, or 0."""

    rsdp: int = 0
    writes: tuple[tuple[int, bytes], ...] = ()


NO_TABLES: Final = FirmwareTables()


def firmware_tables(platform: Platform) -> FirmwareTables:
    """The tables of `platform`; none at all if it has less than 1 MiB of RAM, where their places are none."""
    if platform.memory_size < layout.MIN_MEMORY:
        return NO_TABLES
    area = TableArea()
    rsdp = acpi.place(area, platform)
    mp_table.place(area, platform)
    smbios.place(area, platform)
    return FirmwareTables(
        rsdp,
        (
            (layout.BIOS_DATA_AREA, bda.bios_data_area(platform)),
            (layout.EBDA, bda.extended_bios_data_area()),
            *area.writes,
        ),
    )
