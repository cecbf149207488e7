"""The section headers of an ELF kernel in guest memory: what it names its symbols with.

Multiboot 1 (flag 5) and Multiboot 2 (tag 9) give a kernel its own section headers. Sections that no segment
loads (symbols, strings, debug information) are loaded behind everything else, and their `sh_addr` says where.
The tables are a convenience: an absurd one, or one that does not fit, is left out, and the kernel boots.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.value_classes import Value
from kvmbox.boot.elf.headers import file_header, section_of_names
from kvmbox.boot.image import GuestImage

MAX_SECTIONS: Final = 4096

_SHT_NULL: Final = 0
_SHT_NOBITS: Final = 8
# Of a section header (gABI, "Section Header"), by class: type, address, offset, size, alignment.
_ENTRY: Final = {32: struct.Struct("<4xI4xIII8xI4x"), 64: struct.Struct("<4xI8xQQQ8xQ8x")}
_WORD: Final = {32: "<I", 64: "<Q"}
_ADDRESS_AT: Final = {32: 12, 64: 16}


class ElfSections(Value):
    """`count` headers of `entry_size` bytes at guest-physical `address`; header `names` has their names.

    `headers` is the table. `writes` puts the table and the sections into memory, below `end`.
    """

    count: int
    entry_size: int
    address: int
    names: int
    headers: bytes
    writes: tuple[tuple[int, bytes], ...]
    end: int


def plan_sections(image: GuestImage, bits: int, start: int, limit: int) -> ElfSections | None:
    """The section headers of a checked ELF file of class `bits`, between `start` and `limit`.

    None if there is nothing to give, or it does not fit.
    """
    data = image.data
    header = file_header(data, bits)
    count, size = header.section_count, _ENTRY[bits].size
    if not 0 < count <= MAX_SECTIONS or header.section_size != size:
        return None
    if not header.section_offset or header.section_offset + count * size > len(data):
        return None
    table = bytearray(data[header.section_offset : header.section_offset + count * size])
    address = aligned(start, layout.PAGE_SIZE)
    position = address + len(table)
    writes = []
    # Sections do not overlap in a file that a linker wrote, so together they are smaller than it.
    left = len(data)
    for place in range(0, len(table), size):
        kind, where, offset, length, alignment = _ENTRY[bits].unpack_from(table, place)
        if kind in (_SHT_NULL, _SHT_NOBITS) or where or not length or offset + length > len(data):
            continue
        position = aligned(position, min(max(alignment, 1), layout.PAGE_SIZE))
        left -= length
        if left < 0 or position + length > limit:
            return None
        struct.pack_into(_WORD[bits], table, place + _ADDRESS_AT[bits], position)
        writes.append((position, data[offset : offset + length]))
        position += length
    if position > limit:
        return None
    names = section_of_names(data, bits)
    writes.append((address, bytes(table)))
    return ElfSections(count, size, address, names, bytes(table), tuple(writes), position)


def aligned(address: int, alignment: int) -> int:
    """The first multiple of `alignment` that is not below `address`."""
    return -(-address // alignment) * alignment
