"""Multiboot 2 headers (Multiboot2 Specification 2.0, section 3.1)."""

from __future__ import annotations

import struct
from typing import Final

# Magic, architecture, header length, checksum; 8-byte aligned.
_MAGIC: Final = (0xE85250D6).to_bytes(4, "little")
_HEADER: Final = struct.Struct("<IIII")
_SEARCH_SIZE: Final = 32768


def has_multiboot2_header(data: bytes) -> bool:
    """Whether there is a header with a right checksum."""
    position = data.find(_MAGIC, 0, _SEARCH_SIZE)
    while position >= 0:
        if position % 8 == 0 and position + _HEADER.size <= len(data):
            words = _HEADER.unpack_from(data, position)
            if sum(words) & 0xFFFF_FFFF == 0:
                return True
        position = data.find(_MAGIC, position + 1, _SEARCH_SIZE)
    return False
