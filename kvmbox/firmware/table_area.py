"""The area in which the tables lie, filled from its start, and the checksum that most of them have."""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout

ALIGNMENT: Final = 16
"""Kernels look for entry points at multiples of 16 bytes, and some table readers want no less of tables."""


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of `data` and itself 0, modulo 256."""
    return -sum(data) & 0xFF


class TableArea:
    """Gives out [FIRMWARE_TABLES, FIRMWARE_TABLES_END) and collects what is put there.

    The largest machine needs an eighth of the area, so running out of it is an error of kvmbox: ValueError.
    """

    def __init__(self) -> None:
        self._position: int = layout.FIRMWARE_TABLES
        self._writes: list[tuple[int, bytes]] = []

    def reserve(self, size: int, align: int = ALIGNMENT) -> int:
        """The guest-physical address of `size` bytes for `put`, a multiple of `align`."""
        address = -(-self._position // align) * align
        if address + size > layout.FIRMWARE_TABLES_END:
            raise ValueError(f"{size} more bytes do not fit into the area of the firmware tables")
        self._position = address + size
        return address

    def put(self, address: int, data: bytes) -> None:
        """Write `data` at an address that was reserved for it."""
        self._writes.append((address, data))

    def add(self, data: bytes, align: int = ALIGNMENT) -> int:
        """Write `data` at the next free multiple of `align`; returns its guest-physical address."""
        address = self.reserve(len(data), align)
        self.put(address, data)
        return address

    @property
    def writes(self) -> tuple[tuple[int, bytes], ...]:
        """All that was put, as (guest-physical address, bytes)."""
        return tuple(self._writes)
