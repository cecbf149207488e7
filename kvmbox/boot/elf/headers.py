"""The ELF file header and program headers as numbers (gABI, "ELF Header" and "Program Header"; <elf.h>).

Two structures of two classes each, little-endian, in fixed places: a `struct` format apiece. pyelftools could
decode them too, and tests hold this module against it, but to import it takes longer than everything else
that is done with an image (docs/adr/start.md). Nothing is judged here: every bit pattern decodes.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base.value_classes import Value

ELF_MAGIC: Final = b"\x7fELF"
IDENTITY_SIZE: Final = 16  # EI_NIDENT: what comes before the fields whose size depends on the class

# e_type
ET_REL: Final = 1
ET_EXEC: Final = 2
ET_DYN: Final = 3
ET_CORE: Final = 4

# e_machine
EM_386: Final = 3
EM_X86_64: Final = 62

# p_type
PT_LOAD: Final = 1
PT_INTERP: Final = 3
PT_NOTE: Final = 4

# e_type, e_machine, (e_version,) e_entry, e_phoff, e_shoff, (e_flags, e_ehsize,) e_phentsize, e_phnum,
# e_shentsize, e_shnum, e_shstrndx
_FILE_HEADER: Final = {32: struct.Struct("<HH4xIII6xHHHHH"), 64: struct.Struct("<HH4xQQQ6xHHHHH")}
# 32: p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_flags, p_align
# 64: p_type, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
_PROGRAM_HEADER: Final = {32: struct.Struct("<IIIIIIII"), 64: struct.Struct("<IIQQQQQQ")}

FILE_HEADER_SIZE: Final = {bits: IDENTITY_SIZE + layout.size for bits, layout in _FILE_HEADER.items()}
"""Bytes of the file header, by class (32 or 64)."""
PROGRAM_HEADER_SIZE: Final = {bits: layout.size for bits, layout in _PROGRAM_HEADER.items()}
"""Bytes of one program header, by class."""


class FileHeader(Value):
    """What of the file header counts for loading, in its order. `offset`s and sizes are bytes of the file."""

    type: int
    machine: int
    entry: int
    program_offset: int
    section_offset: int
    program_size: int
    program_count: int
    section_size: int
    section_count: int


class ProgramHeader(Value):
    """A program header. `offset` is in the file; `virtual` and `physical` are addresses; sizes are bytes."""

    index: int
    type: int
    offset: int
    virtual: int
    physical: int
    file_size: int
    memory_size: int


def file_header(data: bytes, bits: int) -> FileHeader:
    """The file header of class `bits` at the start of `data`, which holds all of it."""
    return FileHeader(*_FILE_HEADER[bits].unpack_from(data, IDENTITY_SIZE)[:-1])


def section_of_names(data: bytes, bits: int) -> int:
    """Which section has the names of sections, says the file header."""
    return int(_FILE_HEADER[bits].unpack_from(data, IDENTITY_SIZE)[-1])


def program_header(data: bytes, bits: int, index: int, position: int) -> ProgramHeader:
    """Program header number `index`, of class `bits`, which lies at `position` and wholly within `data`."""
    fields = _PROGRAM_HEADER[bits].unpack_from(data, position)
    places = fields[1:6] if bits == 32 else fields[2:7]
    return ProgramHeader(index, fields[0], *places)
