"""The last accesses to devices that a run loop remembers, in words and as data, for the report of a crash."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from kvmbox.run.vcpu_state import Access

Made = tuple[Access, int | None]
"""An access, and the value that was read or written; None for a string instruction."""


def lines_of(made: Sequence[Made]) -> list[str]:
    """The accesses, the newest last; equal ones in a row are one line."""
    found = ["Last accesses to devices, the newest last:"] if made else []
    for one, equal in groupby(made):
        (direction, address, size), value = one
        count = sum(1 for _ in equal)
        what = "a string" if value is None else f"{value:#0{2 + 2 * size}x}"
        times = f", {count} times" if count > 1 else ""
        found.append(f"  {direction:<5} {address:#06x} size {size}  {what}{times}")
    return found


def as_json(made: Sequence[Made]) -> list[dict[str, Any]]:
    """The accesses as data, the newest last; addresses are hexadecimal strings as in the rest of a report."""
    return [
        {"access": direction, "address": hex(address), "size": size, "value": value}
        for (direction, address, size), value in made
    ]
