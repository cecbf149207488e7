"""The layout of a snapshot file: a header, guest memory, sections, and the description. Pure.

    offset              what
    0                   the header: `HEADER`, then zeros up to a page
    PAGE_SIZE           guest memory, RAM regions one after the other; what is zero is a hole in the file
    behind the memory   sections, one after the other: the state of vCPUs and devices, the files of the boot
    at the end          the description, which has the place, size and checksum of each section

Checksums are CRC-32: they find a damaged or half-copied file, and a restore has to compute them over all
memory that is not zero within milliseconds (6 GiB/s here; BLAKE2b 1.2, SHA-256 1.8). They protect from
nobody: whoever can write the file can write a checksum. What protects is that every field is checked, that
device states go to jailed processes, and that guest memory is as untrusted as it always was.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from kvmbox.base.errors import SnapshotFileError
from kvmbox.base.layout import MAX_MEMORY, PAGE_SIZE
from kvmbox.base.value_classes import Value
from kvmbox.host.files.sparse_memory import BLOCK, Run

MAGIC: Final = b"kvmbox\x1aS"
VERSION: Final = 3
_FIELDS: Final = Struct("<8sIIQQQQI")  # as `Header.fields` has them
_CHECKSUM: Final = Struct("<I")
CHECKSUM_SIZE: Final = _CHECKSUM.size
HEADER_SIZE: Final = _FIELDS.size + _CHECKSUM.size

MAX_DESCRIPTION: Final = 1 << 20
"""How many bytes the description may have."""

MAX_SECTIONS: Final = 4096
MAX_SECTION_BYTES: Final = 1 << 30
"""How many bytes all sections together may have: most of them are files of the boot. They are read into
memory, and a hole in a file costs whoever has made it nothing.
"""

RUN: Final = Struct("<III")
"""Blocks that are not all zero: the first, how many, and the CRC-32 of them all."""


class Header(Value):
    """The beginning of the file. Places and sizes are bytes."""

    file_size: int
    memory_size: int
    description_at: int
    description_size: int
    description_checksum: int

    def encode(self, checksum: int) -> bytes:
        """The bytes of the header; `checksum` is what `crc32` gives for `fields`."""
        return self.fields() + _CHECKSUM.pack(checksum)

    def fields(self) -> bytes:
        """The bytes that the header's own checksum covers."""
        return _FIELDS.pack(MAGIC, VERSION, 0, *self.as_dict().values())


class Section(Value):
    """A part of the file. `offset` and `size` are bytes."""

    offset: int
    size: int
    checksum: int


def decode_header(data: bytes, size: int, checksum: int) -> Header:
    """The header in `data`, of a file of `size` bytes. `checksum` is the CRC-32 of its fields as they are.

    Raises SnapshotFileError.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise SnapshotFileError("it is no snapshot of kvmbox", hint="kvmbox run --snapshot-when makes one")
    if len(data) < HEADER_SIZE:
        raise damaged(f"a header of {len(data)} bytes")
    _, version, zero, *fields = _FIELDS.unpack_from(data)
    header = Header(*fields)
    if version != VERSION:
        raise SnapshotFileError(
            f"it has version {version}, and this kvmbox reads version {VERSION}",
            hint="take the snapshot anew with this kvmbox",
        )
    if zero or _CHECKSUM.unpack_from(data, _FIELDS.size)[0] != checksum:
        raise damaged("the checksum of the header is wrong")
    if header.file_size != size:
        raise damaged(f"{size} bytes, and it says that it has {header.file_size}")
    if header.memory_size % PAGE_SIZE or not 0 < header.memory_size <= MAX_MEMORY:
        raise damaged(f"{header.memory_size} bytes of guest memory")
    place, length = header.description_at, header.description_size
    if length > MAX_DESCRIPTION or not PAGE_SIZE + header.memory_size <= place <= size - length:
        raise damaged("the description is not where it can be")
    return header


def check_section(section: Section, header: Header) -> Section:
    """`section`, if it lies behind memory and before the description. Raises SnapshotFileError."""
    start = PAGE_SIZE + header.memory_size
    if not start <= section.offset <= header.description_at - section.size:
        raise damaged("a section is not where it can be")
    return section


def decode_runs(data: bytes, memory_size: int) -> list[Run]:
    """The runs of blocks in the section of that name: in order, apart, and within memory.

    Raises SnapshotFileError.
    """
    if len(data) % RUN.size:
        raise damaged("the list of memory blocks")
    runs = [Run(*fields) for fields in RUN.iter_unpack(data)]
    blocks = -(-memory_size // BLOCK)
    end = 0
    for run in runs:
        if run.first < end or not run.count or run.first + run.count > blocks:
            raise damaged("the list of memory blocks")
        end = run.first + run.count
    return runs


def damaged(what: str) -> SnapshotFileError:
    """The error of a file that no kvmbox has written."""
    return SnapshotFileError(f"it is damaged: {what}", hint="take or copy the snapshot anew")
