"""A library from a file that is mapped, where no code can be mapped any more.

Theory of operation
-------------------
The dynamic loader relocates a library when it maps it. Capstone has 85,000 relocations: 1.6 ms of CPU time
and 2.3 MiB of memory in every run, for the few that show an instruction. And in a confined kvmbox the loader
cannot map code. `capstone.mapped` has mapped the file: its code and constants are in their places. Here what
the file has of the writable segment is copied to its place, and relocated. At last the tables that are
constant from then on are made so.

Known is what a library in C for x86-64 has that uses the C library alone (System V ABI, AMD64 supplement,
"Relocation"). Its constructors do not run. Capstone 5 has none of its own.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kvmbox.explain.capstone import PAGE, PROT_READ, PT_LOAD, Mapped, protect
from kvmbox.kvm.ioctl import libc

# <elf.h>
PF_W: Final = 2
PT_DYNAMIC: Final = 2
PT_GNU_RELRO: Final = 0x6474_E552
DT_STRTAB: Final = 5
DT_SYMTAB: Final = 6
DT_RELR: Final = 36
TABLES: Final = ((7, 8), (23, 2))
"""Address and size of relocations: DT_RELA and DT_RELASZ, DT_JMPREL and DT_PLTRELSZ."""
RELATIVE: Final = 8
WITH_SYMBOL: Final = (1, 6, 7)
"""R_X86_64_64, R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT."""
RELA: Final = struct.Struct("<QQq")
SYMBOL: Final = struct.Struct("<IBBHQQ")
WORD: Final = 8
PROT_WRITE: Final = 2  # <asm-generic/mman-common.h>


class MappedLibrary(ctypes.CDLL):
    """The functions of a library, by their addresses."""

    def __init__(self, addresses: Mapping[str, int]) -> None:
        super().__init__(None)
        self._addresses = addresses

    def __getitem__(self, name_or_ordinal: int | str) -> Any:
        # SAFETY: code that stays mapped, of a function of that name.
        return ctypes.CFUNCTYPE(ctypes.c_int)(self._addresses[str(name_or_ordinal)])


def load(file: Mapped | None, names: Sequence[str]) -> MappedLibrary:
    """The library with its functions `names`. Raises OSError."""
    try:
        if file is None:
            raise LookupError("not mapped")
        addresses = _load(file)
        return MappedLibrary({name: addresses[name.encode()] for name in names})
    except (struct.error, LookupError) as error:
        raise OSError(f"libcapstone.so: {error}") from error


def _load(file: Mapped) -> dict[bytes, int]:
    """Load it; returns the addresses of its symbols."""
    base, headers = file.base, file.headers
    # SAFETY: all of the file is mapped, and stays so.
    content = memoryview((ctypes.c_char * (file.size - file.size % WORD)).from_address(base)).cast("B")
    place, size = {header[0]: (header[2], header[5]) for header in headers}[PT_DYNAMIC]
    tags = dict(struct.iter_unpack("<QQ", content[place : place + size]))
    if DT_RELR in tags:
        raise LookupError("relocations of another kind")
    symbols = []
    at, names = tags[DT_SYMTAB], tags[DT_STRTAB]  # every linker puts the names behind the symbols
    for name, _, _, section, value, _ in SYMBOL.iter_unpack(content[at : names - (names - at) % SYMBOL.size]):
        symbols.append((ctypes.string_at(base + names + name), base + value if section else 0))
    for kind, flags, offset, address, _, length, size, _ in headers:
        if kind == PT_LOAD and len(content) < max(offset + length, address + size):
            raise LookupError("cut short")
        if kind == PT_LOAD and flags & PF_W:
            present = bytes(content[offset : offset + length])
            protect(base + address, base + address + size, PROT_READ | PROT_WRITE)
            content[address : address + size] = present.ljust(size, b"\0")
        elif kind == PT_LOAD and offset != address:
            raise LookupError("code or constants not in their place")
    words = content.cast("Q")
    for table, bytes_of_table in TABLES:
        start = tags[table]
        for offset, info, addend in RELA.iter_unpack(content[start : start + tags[bytes_of_table]]):
            if info == RELATIVE:
                words[offset // WORD] = base + addend
            elif info & 0xFFFF_FFFF in WITH_SYMBOL:
                words[offset // WORD] = _address(*symbols[info >> 32]) + addend
            else:
                raise LookupError(f"relocation {info:#x}")
    for kind, _, _, address, _, _, size, _ in headers:
        if kind == PT_GNU_RELRO:
            end = base + address + size
            protect(base + address, end - end % PAGE, PROT_READ)
    return dict(symbols)


def _address(name: bytes, own: int) -> int:
    """Of a symbol: one of its own, or one of the C library; 0 for others, which may be missing."""
    try:
        return own or ctypes.addressof(ctypes.c_char.in_dll(libc, name.decode()))
    except ValueError:
        return 0
