"""What a virtio device over PCI has besides: vectors, and their table (VIRTIO 1.2, 4.1.5.1.2)."""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

NO_VECTOR: Final = 0xFFFF
ENTRY: Final = struct.Struct("<QII")
"""An entry of the table: address, data, control (PCI Local Bus Specification 3.0, 6.8.2.6)."""
MASKED: Final = 1
"""Of the control."""


class PciState:
    """The vector of changes of a device's configuration, that of each of its queues, and the table."""

    __slots__ = ("config", "queues", "table")

    def __init__(self, queues: int) -> None:
        self.queues = [NO_VECTOR] * queues
        self.config = NO_VECTOR
        self.table = bytearray(ENTRY.pack(0, 0, MASKED) * (queues + 1))

    def forget_vectors(self) -> None:
        """The driver has reset the device."""
        self.config = NO_VECTOR
        self.queues = [NO_VECTOR] * len(self.queues)

    def named(self, value: int) -> int:
        """The vector that a driver names, if there is one."""
        return value if value <= len(self.queues) else NO_VECTOR
