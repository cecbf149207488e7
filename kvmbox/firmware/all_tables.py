"""All that firmware leaves in memory for a guest, as writes.

Those of a machine that was started without options are made ahead, into `all_tables.bin`
(`tools/make_tables.py`). So a plain run does not load what makes tables. A test compares.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.firmware.platform import Platform

SHIPPED: Final = os.path.join(os.path.dirname(__file__), "tables.bin")
USUAL: Final = Platform(layout.DEFAULT_MEMORY, serial_ports=("COM1", "MMIO"))
"""The machine whose tables are in `SHIPPED`."""
PLACE: Final = Struct("<QQ")
"""In front of each write of `SHIPPED`: its address and size. The first has the RSDP's address and size 0."""


class FirmwareTables(Value):
    """`writes` are (guest-physical address, bytes) pairs; `rsdp` is where ACPI's RSDP is, or 0."""

    rsdp: int = 0
    writes: tuple[tuple[int, bytes], ...] = ()


NO_TABLES: Final = FirmwareTables()


def firmware_tables(platform: Platform) -> FirmwareTables:
    """The tables of `platform`; none at all if it has less than 1 MiB of RAM, where their places are none."""
    if platform.memory_size < layout.MIN_MEMORY:
        return NO_TABLES
    return _shipped() if platform == USUAL else make_tables(platform)


def _shipped() -> FirmwareTables:
    found = []
    with open(SHIPPED, "rb") as file:
        while place := file.read(PLACE.size):
            address, size = PLACE.unpack(place)
            found.append((address, file.read(size)))
    return FirmwareTables(found[0][0], tuple(found[1:]))


def make_tables(platform: Platform) -> FirmwareTables:
    """The tables of `platform`, made now."""
    from kvmbox.firmware import acpi, bda, mp_table, smbios
    from kvmbox.firmware.table_area import TableArea

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
