"""The library capstone, where that is installed (`kvmbox[explain]`): found once, and mapped.

A confined kvmbox cannot map it, so a run does that before, if somebody looks. That costs 0.9 ms and 1.3 MiB.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

VERSION: Final = 5
"""The major version that is known."""

# <elf.h>: where a header has the place of its first segment, and that its type, flags and size.
E_PHOFF: Final = 32
P_FILESZ: Final = 32
READABLE: Final = 4 << 32 | 1
"""The type and flags of a segment that is mapped to be read, PT_LOAD and PF_R."""
MADV_DONTNEED: Final = 4


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None if there is none of that version."""
    for directory in sys.path:
        path = os.path.join(directory, "capstone", "lib", "libcapstone.so")
        if not os.path.exists(path):
            continue
        try:
            found = ctypes.CDLL(path)
            version = found.cs_version(None, None)
        except (OSError, AttributeError):  # not for this machine, or something else of that name
            continue
        if version >> 8 == VERSION:
            _forget_relocations(found)
            return found
    return None


def _forget_relocations(found: ctypes.CDLL) -> None:
    """Give back the memory of the first segment, 2 MiB of relocations, which were for the dynamic loader."""
    # SAFETY: a handle of dlopen begins with the address at which the library is mapped, with its header. What
    # is taken away is read from the file again, if it is looked at.
    base = ctypes.c_uint64.from_address(found._handle).value
    segment = base + ctypes.c_uint64.from_address(base + E_PHOFF).value
    if ctypes.c_uint64.from_address(segment).value == READABLE:
        size = ctypes.c_uint64.from_address(segment + P_FILESZ).value
        ctypes.CDLL(None).madvise(ctypes.c_void_p(base), ctypes.c_size_t(size), MADV_DONTNEED)
