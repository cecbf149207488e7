"""The notes of an ELF file (gABI, "Note Section"), as far as they are in PT_NOTE segments.

Notes say how a kernel wants to be booted, so they are looked at before anything is checked: whatever is
damaged ends the list, and nothing here raises. At most MAX_NOTES are looked at, of all segments together, and
no descriptor is copied beyond MAX_DESCRIPTOR bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.boot.elf import headers as elf

MAX_NOTES: Final = 1024
MAX_DESCRIPTOR: Final = 64
_MAX_NAME: Final = 64
_MAX_HEADERS: Final = 256

_CLASS_BITS: Final = {1: 32, 2: 64}  # EI_CLASS
_LITTLE_ENDIAN: Final = 1  # EI_DATA
_NOTE: Final = struct.Struct("<III")  # n_namesz, n_descsz, n_type
# The gABI pads name and descriptor to 4 bytes. A segment of 8-byte alignment may be padded to 8.
_ALIGNMENTS: Final = (4, 8)


class Note(Value):
    """One note. `descriptor` has at most MAX_DESCRIPTOR of its `size` bytes."""

    name: bytes
    type: int
    size: int
    descriptor: bytes


def find_note(data: bytes, name: bytes, note_type: int | None = None) -> Note | None:
    """The first note of that name and type (any type where it is None), or None."""
    for align in _ALIGNMENTS:
        notes = chain.from_iterable(_notes(data, header, align) for header in _note_segments(data))
        for note in islice(notes, MAX_NOTES):
            if note.name == name and note_type in (None, note.type):
                return note
    return None


def _note_segments(data: bytes) -> Iterator[elf.ProgramHeader]:
    bits = (
        _CLASS_BITS.get(data[4]) if len(data) > elf.IDENTITY_SIZE and data.startswith(elf.ELF_MAGIC) else None
    )
    if bits is None or data[5] != _LITTLE_ENDIAN or len(data) < elf.FILE_HEADER_SIZE[bits]:
        return
    header = elf.file_header(data, bits)
    size = elf.PROGRAM_HEADER_SIZE[bits]
    if header.program_size != size:
        return
    for index in range(min(header.program_count, _MAX_HEADERS)):
        position = header.program_offset + index * size
        if position + size > len(data):
            return
        found = elf.program_header(data, bits, index, position)
        if found.type == elf.PT_NOTE:
            yield found


def _notes(data: bytes, header: elf.ProgramHeader, align: int) -> Iterator[Note]:
    # Positions count from the start of the segment, whose alignment in the file is not to be relied on.
    segment = memoryview(data)[header.offset : header.offset + header.file_size]
    position = 0
    while position + _NOTE.size <= len(segment):
        name_size, size, note_type = _NOTE.unpack_from(segment, position)
        name = position + _NOTE.size
        descriptor = -(-(name + name_size) // align) * align
        if descriptor + size > len(segment):
            return
        yield Note(
            bytes(segment[name : name + min(name_size, _MAX_NAME)]).rstrip(b"\0"),
            note_type,
            size,
            bytes(segment[descriptor : descriptor + min(size, MAX_DESCRIPTOR)]),
        )
        position = -(-(descriptor + size) // align) * align
