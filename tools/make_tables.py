#!/usr/bin/env python3
"""Write kvmbox/firmware/tables.bin: the firmware's tables of a machine that was started without options.

Run it after each change of such a table, in the virtual environment:

    .venv/bin/python tools/make_tables.py
"""

from __future__ import annotations

from kvmbox.firmware.all_tables import PLACE, SHIPPED, USUAL, make_tables


def content() -> bytes:
    """What the file has to have."""
    tables = make_tables(USUAL)
    writes = ((tables.rsdp, b""), *tables.writes)
    return b"".join(PLACE.pack(address, len(data)) + data for address, data in writes)


if __name__ == "__main__":
    with open(SHIPPED, "wb") as file:
        file.write(content())
