"""A file with symbols of the guest, as bytes: its image, or a file of --symbols."""

from __future__ import annotations

from kvmbox.base.value_classes import Value


class SymbolFile(Value):
    """`base` is what to add to the addresses in the file."""

    data: bytes
    base: int = 0
