"""ELF executables: from the file's headers to segments in guest-physical memory.

The file is hostile. Single headers are decoded, each after it was checked to lie within the file; sections
are looked at for one thing only: a section header table behind the end of the file tells that the file was
cut short. pyelftools' `ELFFile` would follow section headers, and an `e_shentsize` of 0 makes it go round
2^64 times; of pyelftools only the names of machines are used, when a file is refused.

The entry (`e_entry`) is a virtual address. If it lies in a segment's virtual range it is taken to that
segment's physical range, e_entry - p_vaddr + p_paddr; the first such segment counts. Otherwise it must lie
in a segment's physical range and is used as it is, which is how some higher-half kernels are linked.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.elf.headers import (
    EM_386,
    EM_X86_64,
    ET_CORE,
    ET_DYN,
    ET_EXEC,
    ET_REL,
    FILE_HEADER_SIZE,
    IDENTITY_SIZE,
    PROGRAM_HEADER_SIZE,
    PT_INTERP,
    PT_LOAD,
    FileHeader,
    ProgramHeader,
    file_header,
    program_header,
)
from kvmbox.boot.image import ACCEPTED, GuestImage
from kvmbox.boot.segments import LoadSegment

MAX_PROGRAM_HEADERS: Final = 256  # kernels have a handful; every one costs time

_CLASS_BITS: Final = {1: 32, 2: 64}  # EI_CLASS
_MACHINE: Final = {32: EM_386, 64: EM_X86_64}
_LITTLE_ENDIAN: Final = 1  # EI_DATA
_BIG_ENDIAN: Final = 2
_CURRENT_VERSION: Final = 1  # EI_VERSION

_AGAIN: Final = "build or copy it again"
_STATIC_HINT: Final = "link it statically at a fixed address: -static -no-pie -nostdlib"


class ElfImage(Value):
    """What booting needs of an ELF file. `bits` is 32 or 64, `entry` guest-physical."""

    bits: int
    entry: int
    segments: tuple[LoadSegment, ...]


def parse_elf(image: GuestImage, *, by_protocol: bool = False, needs_entry: bool = True) -> ElfImage:
    """The executable in `image`; ImageError for anything that is not a whole, static x86 executable.

    `by_protocol` says that a boot protocol tells how the entry is entered. The class need not go with the
    machine then, and a position-independent file (ET_DYN) is taken at the addresses it names. Where the
    protocol also says where the entry is, `needs_entry` is false: e_entry is not looked at, and `entry` is 0.
    """
    bits = _check_identity(image)
    _check_inside(image, "the ELF header", 0, FILE_HEADER_SIZE[bits])
    header = file_header(image.data, bits)
    _check_file_header(image, header, bits, by_protocol)
    program_headers = [
        program_header(image.data, bits, index, header.program_offset + index * PROGRAM_HEADER_SIZE[bits])
        for index in range(header.program_count)
    ]
    _check_type(image, header.type, program_headers, by_protocol)
    loads = [p for p in program_headers if p.type == PT_LOAD and p.memory_size]
    for load in loads:
        _check_load(image, load)
    if not loads:
        raise image.error(
            "it is an ELF file without a loadable segment (PT_LOAD)",
            hint="link it: an object file is not enough",
        )
    return ElfImage(
        bits,
        _physical_entry(image, header.entry, loads) if needs_entry else 0,
        tuple(LoadSegment(p.index, p.offset, p.file_size, p.physical, p.memory_size) for p in loads),
    )


def check_reach(image: GuestImage, entry: int) -> None:
    """ImageError if the entry is where neither 32-bit code nor the identity map goes."""
    if entry >= layout.MMIO_HOLE_END:
        raise image.error(
            f"its entry {entry:#x} is not below 4 GiB, the part of memory that it is entered with",
            hint="give the segment with the entry a load address (LMA) below 4 GiB",
        )


def _check_identity(image: GuestImage) -> int:
    identity = image.data[:IDENTITY_SIZE]
    _check_inside(image, "the ELF identification", 0, IDENTITY_SIZE)
    bits = _CLASS_BITS.get(identity[4])
    if bits is None:
        raise _not_accepted(image, f"an ELF file of unknown class {identity[4]}")
    if identity[5] == _BIG_ENDIAN:
        raise _not_accepted(image, "a big-endian ELF file")
    if identity[5] != _LITTLE_ENDIAN:
        raise _not_accepted(image, f"an ELF file of unknown byte order {identity[5]}")
    if identity[6] != _CURRENT_VERSION:
        raise _not_accepted(image, f"an ELF file of unknown version {identity[6]}")
    return bits


def _check_file_header(image: GuestImage, header: FileHeader, bits: int, by_protocol: bool) -> None:
    machine = header.machine
    if bits == 32 and machine == EM_X86_64 and not by_protocol:
        raise image.error(
            f"it is an x32 ELF file (32-bit class, x86-64 machine): its code is 64-bit, and its headers do"
            f" not say in which mode its entry is meant; {ACCEPTED}",
            hint="link 64-bit code with -m elf_x86_64, or 32-bit code with -m elf_i386; not -mx32, and not"
            " objcopy -O elf32-x86-64",
        )
    if machine != _MACHINE[bits] and not (by_protocol and machine in _MACHINE.values()):
        raise _not_accepted(image, f"an ELF{bits} file for machine {_name_of('E_MACHINE', machine)}")
    count = header.program_count
    if count > MAX_PROGRAM_HEADERS:
        raise image.error(
            f"it is an ELF file with an absurd {count} program headers; accepted are {MAX_PROGRAM_HEADERS}",
            hint=_AGAIN,
        )
    size = PROGRAM_HEADER_SIZE[bits]
    if count and header.program_size != size:
        raise image.error(
            f"it is a damaged ELF{bits} file: program headers of {header.program_size} bytes instead of"
            f" {size}",
            hint=_AGAIN,
        )
    _check_inside(image, "the program header table", header.program_offset, count * size)
    if header.section_offset:
        _check_inside(
            image,
            "the section header table",
            header.section_offset,
            header.section_count * header.section_size,
        )


def _check_type(image: GuestImage, file_type: int, headers: list[ProgramHeader], by_protocol: bool) -> None:
    if any(p.type == PT_INTERP for p in headers):
        raise image.error("it is a dynamically linked program (PT_INTERP), not a kernel", hint=_STATIC_HINT)
    if file_type == ET_DYN and by_protocol:
        return
    if file_type == ET_DYN:
        raise image.error(
            "it is position independent (ET_DYN: static-pie or a shared library);"
            " accepted are fixed addresses (ET_EXEC)",
            hint=_STATIC_HINT,
        )
    if file_type == ET_REL:
        raise image.error(
            "it is an unlinked object file (ET_REL); accepted are executables (ET_EXEC)",
            hint="link it with ld",
        )
    if file_type == ET_CORE:
        raise image.error("it is a core dump (ET_CORE); accepted are executables (ET_EXEC)")
    if file_type != ET_EXEC:
        raise image.error(
            f"it is an ELF file of unknown type {_name_of('E_TYPE', file_type)};"
            " accepted are executables (ET_EXEC)"
        )


def _check_load(image: GuestImage, load: ProgramHeader) -> None:
    if load.file_size > load.memory_size:
        raise image.error(
            f"it is a damaged ELF file: segment {load.index} has {load.file_size} bytes in the file and"
            f" {load.memory_size} in memory",
            hint=_AGAIN,
        )
    if load.file_size:
        _check_inside(image, f"segment {load.index}", load.offset, load.file_size)


def _physical_entry(image: GuestImage, entry: int, loads: list[ProgramHeader]) -> int:
    for load in loads:
        if load.virtual <= entry < load.virtual + load.memory_size:
            return entry - load.virtual + load.physical
    for load in loads:
        if load.physical <= entry < load.physical + load.memory_size:
            return entry
    raise image.error(
        f"its entry {entry:#x} lies in no loaded segment",
        hint="name the first instruction with ENTRY() or ld -e",
    )


def _name_of(field: str, number: int) -> str:
    """The name that <elf.h> has for a value of the file header's `field`, else the number."""
    from elftools.elf import enums

    names = {value: name for name, value in getattr(enums, f"ENUM_{field}").items()}
    return str(names.get(number, number))


def _check_inside(image: GuestImage, what: str, offset: int, size: int) -> None:
    if offset + size > len(image.data):
        raise image.error(
            f"it is an ELF file cut short: {what} ends at byte {offset + size},"
            f" and the file has {len(image.data)}",
            hint=_AGAIN,
        )


def _not_accepted(image: GuestImage, found: str) -> ImageError:
    return image.error(f"it is {found}; {ACCEPTED}", hint="build it for i386 or x86-64")
