"""The section headers of an ELF kernel in guest memory: what it names its symbols with.

Multiboot 1 (flag 5) and Multiboot 2 (tag 9) give a kernel its own section headers. Sections that no segment
loads (symbols, strings, debug information) are loaded behind everything else, and their `sh_addr` says where.
The tables are a convenience: an absurd one, or one that does not fit, is left out, and the kernel boots.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.stand_ins import Value
from kvmbox.boot.elf.headers import IDENTITY_SIZE, file_header
from kvmbox.boot.image import GuestImage

MAX_SECTIONS: Final = 4096

_SHT_NULL: Final = 0
_SHT_NOBITS: Final = 8
# Of a section header (gABI, "Section Header"), by class: its size; type, address, offset, size, alignment.
_SIZE: Final = {32: 40, 64: 64}
_TYPE: Final = struct.Struct("<I")
_TYPE_AT: Final = 4
_WORD: Final = {32: struct.Struct("<I"), 64: struct.Struct("<Q")}
_ADDRESS_AT: Final = {32: 12, 64: 16}
_OFFSET_AT: Final = {32: 16, 64: 24}
_LENGTH_AT: Final = {32: 20, 64: 32}
_ALIGNMENT_AT: Final = {32: 32, 64: 48}
_NAMES_AT: Final = {32: 34, 64: 46}  # e_shstrndx, in the file header behind the identification


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
    count, size = header.section_count, _SIZE[bits]
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
    word = _WORD[bits]
    for place in range(0, len(table), size):
        (kind,) = _TYPE.unpack_from(table, place + _TYPE_AT)
        (where,) = word.unpack_from(table, place + _ADDRESS_AT[bits])
        (offset,) = word.unpack_from(table, place + _OFFSET_AT[bits])
        (length,) = word.unpack_from(table, place + _LENGTH_AT[bits])
        (alignment,) = word.unpack_from(table, place + _ALIGNMENT_AT[bits])
        if kind in (_SHT_NULL, _SHT_NOBITS) or where or not length or offset + length > len(data):
            continue
        position = aligned(position, min(max(alignment, 1), layout.PAGE_SIZE))
        left -= length
        if left < 0 or position + length > limit:
            return None
        word.pack_into(table, place + _ADDRESS_AT[bits], position)
        writes.append((position, data[offset : offset + length]))
        position += length
    if position > limit:
        return None
    (names,) = struct.unpack_from("<H", data, IDENTITY_SIZE + _NAMES_AT[bits])
    writes.append((address, bytes(table)))
    return ElfSections(count, size, address, names, bytes(table), tuple(writes), position)


def aligned(address: int, alignment: int) -> int:
    """The first multiple of `alignment` that is not below `address`."""
    return -(-address // alignment) * alignment
