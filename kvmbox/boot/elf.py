"""ELF images: header and program headers, checked before anything of them is believed.

The fields are those of the System V ABI, "Object Files". Only what a loader needs is looked at: sections are
not, but a section header table that lies beyond the end of the file shows that the file was cut short.

pyelftools knows the structures and the names; it is given nothing that was not found to be whole before,
so that `ELFParseError` is all it can raise.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from kvmbox.boot.image import ACCEPTED, GuestImage
from kvmbox.boot.segments import LoadSegment

MAGIC: Final = b"\x7fELF"

_IDENT_SIZE: Final = 16
_EI_CLASS: Final = 4
_EI_DATA: Final = 5
_EI_VERSION: Final = 6
_CLASS_BITS: Final = {1: 32, 2: 64}
_LITTLE_ENDIAN: Final = 1
_BIG_ENDIAN: Final = 2
_CURRENT_VERSION: Final = 1

_HEADER_SIZE: Final = {32: 52, 64: 64}
_PROGRAM_HEADER_SIZE: Final = {32: 32, 64: 56}
_MACHINE: Final = {32: "EM_386", 64: "EM_X86_64"}
_ANY_MACHINE: Final = frozenset(_MACHINE.values())

# Linux's exec refuses a bigger table too (load_elf_phdrs in fs/binfmt_elf.c). It bounds our work.
_MAX_PROGRAM_HEADERS_SIZE: Final = 65536

_WRONG_TYPE: Final = {
    "ET_REL": ("an object file that was not linked", "link it: ld -o kernel.elf file.o"),
    "ET_DYN": (
        "a position-independent executable or shared library",
        "link it to fixed addresses: -static -no-pie",
    ),
    "ET_CORE": ("a core dump", None),
}

_NOTE_HEADER: Final = struct.Struct("<III")
_PVH_NOTE: Final = (b"Xen\0", 18)  # XEN_ELFNOTE_PHYS32_ENTRY in Xen's public/elfnote.h


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """A PT_LOAD that takes memory: where it goes, and the address that the linker gave to its code."""

    load: LoadSegment
    virtual_address: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """What a loader wants to know of an ELF file. `bits` is 32 or 64; `entry` is e_entry as it stands."""

    bits: int
    entry: int
    segments: tuple[ElfSegment, ...]
    has_pvh_note: bool

    def physical_entry(self) -> int | None:
        """Where execution begins in guest-physical memory, or None if that is in no segment.

        e_entry is a virtual address where a segment's virtual addresses hold it: kernels in the higher
        half say it so. Else it is taken as a physical one, which other linker scripts write there.
        """
        for segment in self.segments:
            offset = self.entry - segment.virtual_address
            if 0 <= offset < segment.load.memory_size:
                return segment.load.address + offset
        for segment in self.segments:
            if segment.load.address <= self.entry < segment.load.end:
                return self.entry
        return None


def is_elf(data: bytes) -> bool:
    """Whether `data` begins as an ELF file does, whole or not."""
    return data.startswith(MAGIC)


def parse_elf(image: GuestImage) -> ElfImage:
    """The ELF file in `image`; ImageError unless it is a whole, static x86 executable."""
    bits = _check_identification(image)
    header, program_headers = _parse_headers(image, bits)
    segments: list[ElfSegment] = []
    for index, fields in enumerate(program_headers):
        if fields["p_type"] == "PT_INTERP":
            raise image.error(
                "it is dynamically linked (it has a PT_INTERP segment); accepted are static executables",
                hint="link it with -static -no-pie",
            )
        if fields["p_type"] == "PT_LOAD" and fields["p_memsz"] + fields["p_filesz"] > 0:
            segments.append(_load_segment(image, index, fields))
    if not segments:
        raise image.error(
            "this ELF file has nothing to load (no PT_LOAD segment)", hint="check the linker script"
        )
    notes = [fields for fields in program_headers if fields["p_type"] == "PT_NOTE"]
    has_pvh_note = any(_PVH_NOTE in _notes(image.data, fields) for fields in notes)
    return ElfImage(bits, int(header["e_entry"]), tuple(segments), has_pvh_note)


def _check_identification(image: GuestImage) -> int:
    data = image.data
    if len(data) < _IDENT_SIZE:
        raise _cut_short(image, "ELF header", 0, _HEADER_SIZE[32])
    bits = _CLASS_BITS.get(data[_EI_CLASS])
    if bits is None:
        raise image.error(f"this ELF file has the unknown class {data[_EI_CLASS]}; {ACCEPTED}")
    if data[_EI_DATA] != _LITTLE_ENDIAN:
        order = (
            "big-endian" if data[_EI_DATA] == _BIG_ENDIAN else f"of the unknown byte order {data[_EI_DATA]}"
        )
        raise image.error(f"this ELF file is {order}; {ACCEPTED}", hint="build it for x86")
    if data[_EI_VERSION] != _CURRENT_VERSION:
        raise image.error(f"this ELF file has the unknown version {data[_EI_VERSION]}; {ACCEPTED}")
    if len(data) < _HEADER_SIZE[bits]:
        raise _cut_short(image, "ELF header", 0, _HEADER_SIZE[bits])
    return bits


def _parse_headers(image: GuestImage, bits: int) -> tuple[Any, list[Any]]:
    """ELF header and program headers, as pyelftools' containers of ints and names."""
    # Imported late: it takes longer than all else that a start with --mode real does.
    from elftools.common.exceptions import ELFParseError
    from elftools.common.utils import struct_parse
    from elftools.elf.structs import ELFStructs

    structs = ELFStructs(little_endian=True, elfclass=bits)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    stream = io.BytesIO(image.data)
    try:
        header = struct_parse(structs.Elf_Ehdr, stream, 0)
        _check_header(image, bits, header)
        size = _PROGRAM_HEADER_SIZE[bits]
        positions = range(header["e_phoff"], header["e_phoff"] + header["e_phnum"] * size, size)
        return header, [struct_parse(structs.Elf_Phdr, stream, position) for position in positions]
    except ELFParseError as error:  # cannot be, as far as we know: everything read lies in the file
        raise image.error(f"this ELF file cannot be parsed: {error}") from error


def _check_header(image: GuestImage, bits: int, header: Any) -> None:
    machine = header["e_machine"]
    if machine != _MACHINE[bits]:
        name = str(machine).removeprefix("EM_")
        if machine in _ANY_MACHINE:
            raise image.error(f"this is an ELF{bits} file for {name}, which do not go together; {ACCEPTED}")
        raise image.error(
            f"this ELF file is for another machine ({name}); {ACCEPTED}", hint="build it for x86"
        )
    kind = header["e_type"]
    if kind != "ET_EXEC":
        found, hint = _WRONG_TYPE.get(kind, (f"an ELF file of the unknown type {kind}", None))
        raise image.error(f"it is {found}; accepted are static executables", hint=hint)
    count, entry_size = header["e_phnum"], header["e_phentsize"]
    if count == 0:
        raise image.error(
            "this ELF file has nothing to load (no program headers)", hint="check the linker script"
        )
    if entry_size != _PROGRAM_HEADER_SIZE[bits]:
        raise image.error(
            f"its program headers have {entry_size} bytes each; those of ELF{bits} have {_PROGRAM_HEADER_SIZE[bits]}"
        )
    if count * entry_size > _MAX_PROGRAM_HEADERS_SIZE:
        raise image.error(
            f"it has {count} program headers; accepted are {_MAX_PROGRAM_HEADERS_SIZE // entry_size}"
        )
    _check_inside(image, "program headers", header["e_phoff"], count * entry_size)
    if header["e_shoff"]:
        # e_shnum is 0 with 65280 sections and more; then there is one header at least.
        _check_inside(
            image, "section headers", header["e_shoff"], max(header["e_shnum"], 1) * header["e_shentsize"]
        )


def _load_segment(image: GuestImage, index: int, fields: Any) -> ElfSegment:
    if fields["p_filesz"] > fields["p_memsz"]:
        raise image.error(
            f"segment {index} has {fields['p_filesz']} bytes in the file and only {fields['p_memsz']} in memory",
            hint="the program headers are damaged: build the image again",
        )
    if fields["p_filesz"]:
        _check_inside(image, f"contents of segment {index}", fields["p_offset"], fields["p_filesz"])
    load = LoadSegment(
        index=index,
        offset=fields["p_offset"],
        file_size=fields["p_filesz"],
        address=fields["p_paddr"],
        memory_size=fields["p_memsz"],
    )
    return ElfSegment(load, fields["p_vaddr"])


def _check_inside(image: GuestImage, what: str, offset: int, size: int) -> None:
    if offset + size > len(image.data):
        raise _cut_short(image, what, offset, size)


def _cut_short(image: GuestImage, what: str, offset: int, size: int) -> Exception:
    return image.error(
        f"this ELF file is cut short: its {what} at {offset:#x}..{offset + size:#x} are beyond its end at"
        f" {len(image.data):#x}",
        hint="copy or build the image again",
    )


def _notes(data: bytes, fields: Any) -> Iterator[tuple[bytes, int]]:
    """(name, type) of each whole note of a PT_NOTE segment; a damaged one ends it, as nothing depends on it."""
    position = fields["p_offset"]
    end = min(position + fields["p_filesz"], len(data))
    while position + _NOTE_HEADER.size <= end:
        name_size, content_size, kind = _NOTE_HEADER.unpack_from(data, position)
        position += _NOTE_HEADER.size
        if position + name_size > end:
            return
        yield data[position : position + name_size], kind
        position += _aligned(name_size) + _aligned(content_size)


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def load_segments(elf: ElfImage) -> Sequence[LoadSegment]:
    """The segments of `elf` as the loader wants them."""
    return [segment.load for segment in elf.segments]
