"""The file of the library capstone, where that is installed (`kvmbox[explain]`).

A confined kvmbox can map no code. So a run maps the file before, which takes 0.1 ms and no memory.
`mapped_library` makes a library of it when the first instruction is to be shown.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from functools import cache
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.kvm.ioctl import libc

PAGE: Final = 4096
# <elf.h>: e_phoff and e_phnum; a program header; its p_type and a bit of its p_flags.
_PLACES: Final = struct.Struct("<32xQ16xH")
_HEADER: Final = struct.Struct("<IIQQQQQQ")
PT_LOAD: Final = 1
PF_X: Final = 1
# <asm-generic/mman-common.h>
PROT_READ: Final = 1
_PROT_EXEC: Final = 4
_MAP_PRIVATE: Final = 2


class Mapped(Value):
    """Where the file is mapped, its size, and the fields of its program headers."""

    base: int
    size: int
    headers: tuple[tuple[int, ...], ...]


def path() -> str | None:
    """Of the library, where it is installed."""
    places = (os.path.join(directory, "capstone", "lib", "libcapstone.so") for directory in sys.path)
    return next(filter(os.path.exists, places), None)


def protect(start: int, end: int, protection: int) -> None:
    """Change the protection of the pages from that of `start` to the last before `end`. Raises OSError."""
    start -= start % PAGE
    # SAFETY: pages of the file, of which nobody knows yet.
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), protection):
        raise OSError(ctypes.get_errno(), "mprotect")


@cache
def mapped() -> Mapped | None:
    """Map the file, for good; None if that cannot be."""
    if (found := path()) is None:
        return None
    file = os.open(found, os.O_RDONLY | os.O_CLOEXEC)
    try:
        first, size = os.read(file, PAGE), os.fstat(file).st_size
        table, count = _PLACES.unpack_from(first)
        headers = tuple(_HEADER.iter_unpack(first[table : table + count * _HEADER.size]))
        mmap = ctypes.CDLL(None).mmap
        mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *3 * (ctypes.c_int,), ctypes.c_long)
        mmap.restype = ctypes.c_ssize_t
        if (base := mmap(None, size, PROT_READ, _MAP_PRIVATE, file, 0)) == -1:
            return None
        for kind, flags, offset, _, _, length, _, _ in headers:
            if kind == PT_LOAD and flags & PF_X and offset + length <= size:
                protect(base + offset, base + offset + length, PROT_READ | _PROT_EXEC)
    except (OSError, struct.error):  # no memory, or something else of that name
        return None
    finally:
        os.close(file)
    return Mapped(base, size, headers)
