"""KVM's ring of coalesced writes, as the kernel fills it."""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.run.vcpu.coalesced_ring import ENTRIES, ENTRY_SIZE, RING_WORD

RING: Final = 8 * RING_WORD
"""Where the ring lies in the mapping of a vCPU."""


def indices(page: bytearray) -> tuple[int, int]:
    """`first` and `last`."""
    first, last = struct.unpack_from("<II", page, RING)
    return first, last


def kernel_writes(page: bytearray, port: int, data: bytes, *, length: int = 1, is_port: int = 1) -> None:
    """What KVM does with writes of a byte each; it leaves one entry free."""
    for byte in data:
        first, last = indices(page)
        assert (last + 1) % ENTRIES != first, "the ring is full: this one exits"
        # What KVM does not write of an entry is left from before, here on purpose.
        content = bytes([byte]) + b"\xee" * 7
        struct.pack_into("<QII8s", page, RING + 8 + ENTRY_SIZE * last, port, length, is_port, content)
        struct.pack_into("<I", page, RING + 4, (last + 1) % ENTRIES)
