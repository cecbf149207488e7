"""The section header table of an ELF file, for kernels that want to see it: as bytes, with sections placed.

Multiboot has the loader load all sections that no segment brings (symbols, debug information) behind the
image, and write their addresses into sh_addr (Multiboot2 Specification 2.0, section 3.6.7).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from kvmbox import layout
from kvmbox.boot.elf_headers import file_header
from kvmbox.boot.image import GuestImage
from kvmbox.boot.segments import LoadSegment
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory

MAX_SECTIONS: Final = 1024  # kernels have some dozens; every one takes room in the boot information
SECTION_HEADER_SIZE: Final = {32: 40, 64: 64}
_NAMES_OFFSET: Final = {32: 50, 64: 62}  # e_shstrndx
_SHT_NOBITS: Final = 8
# sh_type, sh_flags, sh_addr, sh_offset, sh_size; then sh_addralign at its own offset
_SECTION: Final = {32: struct.Struct("<4xIIIII"), 64: struct.Struct("<4xIQQQQ")}
_ADDRESS: Final = {32: (12, struct.Struct("<I")), 64: (16, struct.Struct("<Q"))}
_ALIGNMENT: Final = {32: (32, struct.Struct("<I")), 64: (48, struct.Struct("<Q"))}
_MAX_ALIGNMENT: Final = 1 << 16
_DEFAULT_ALIGNMENT: Final = 16


class Sections(Value):
    """`count` section headers in `table`, `names` the number of the one with the names; and what to load."""

    count: int
    names: int
    entry_size: int
    table: bytes
    segments: tuple[LoadSegment, ...]


def room_for_sections(image: GuestImage, bits: int) -> int:
    """Bytes that `place_sections` needs at most behind the image. Raises ImageError as it does."""
    return sum(one.size + one.align for one in _unplaced(image, bits, _table(image, bits)))


def place_sections(
    image: GuestImage, bits: int, segments: tuple[LoadSegment, ...], memory: GuestMemory
) -> Sections | None:
    """The sections of the ELF file `image`, placed behind `segments`; None if it has none.

    ImageError for sections that are absurd, or do not fit into memory.
    """
    table = _table(image, bits)
    if not table:
        return None
    limit = memory.regions[0].end
    position = max([layout.HIGH_MEMORY_START, *(one.end for one in segments if one.address < limit)])
    at, field = _ADDRESS[bits]
    placed: list[LoadSegment] = []
    for one in _unplaced(image, bits, table):
        position = -(-position // one.align) * one.align
        if position + one.size > limit:
            raise image.error(
                f"its sections without an address (symbols, debug information) do not fit behind it into"
                f" memory: section {one.index} has {one.size} bytes",
                hint="strip it, or give the guest more with --memory",
            )
        field.pack_into(table, one.index * SECTION_HEADER_SIZE[bits] + at, position)
        placed.append(LoadSegment(len(segments) + len(placed), one.offset, one.size, position, one.size))
        position += one.size
    names = int.from_bytes(image.data[_NAMES_OFFSET[bits] : _NAMES_OFFSET[bits] + 2], "little")
    size = SECTION_HEADER_SIZE[bits]
    return Sections(len(table) // size, names, size, bytes(table), tuple(placed))


class _Unplaced(Value):
    index: int
    offset: int
    size: int
    align: int


def _table(image: GuestImage, bits: int) -> bytearray:
    """The section header table, which `parse_elf` found to lie within the file; empty if there is none."""
    header = file_header(image.data, bits)
    count, size = header.section_count, SECTION_HEADER_SIZE[bits]
    if not header.section_offset or not count:
        return bytearray()
    if header.section_size != size:
        raise image.error(
            f"it is a damaged ELF{bits} file: section headers of {header.section_size} bytes instead of"
            f" {size}",
            hint="build or copy it again, or strip it",
        )
    if count > MAX_SECTIONS:
        raise image.error(
            f"it is an ELF file with an absurd {count} section headers; accepted are {MAX_SECTIONS}",
            hint="strip it",
        )
    return bytearray(image.data[header.section_offset : header.section_offset + count * size])


def _unplaced(image: GuestImage, bits: int, table: bytearray) -> Iterator[_Unplaced]:
    """The sections of `table` that have bytes in the file and no address."""
    size = SECTION_HEADER_SIZE[bits]
    at, field = _ALIGNMENT[bits]
    for index in range(len(table) // size):
        kind, _, address, offset, length = _SECTION[bits].unpack_from(table, index * size)
        if address or not length or kind == _SHT_NOBITS:
            continue
        if offset + length > len(image.data):
            raise image.error(
                f"it is an ELF file cut short: section {index} ends at byte {offset + length},"
                f" and the file has {len(image.data)}",
                hint="build or copy it again, or strip it",
            )
        (align,) = field.unpack_from(table, index * size + at)
        # An alignment that is no power of two, or huge, is not worth a refusal: nothing is executed there.
        if align & (align - 1) or not 0 < align <= _MAX_ALIGNMENT:
            align = _DEFAULT_ALIGNMENT
        yield _Unplaced(index, offset, length, align)
