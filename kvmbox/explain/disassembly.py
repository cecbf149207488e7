"""Instructions as text, by the library capstone where that is installed (`kvmbox[explain]`).

Three functions of the library are called by ctypes: its Python binding takes 100 ms to import, and imports
modules that a confined kvmbox cannot load. A confined kvmbox cannot map the library either, so a run calls
`preload` before, if somebody looks. That costs 0.9 ms and 3.4 MiB.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

from kvmbox.lean import Value

VERSION: Final = 5
"""The major version whose structures these are."""

_ARCH_X86: Final = 3
_MODES: Final = {16: 1 << 1, 32: 1 << 2, 64: 1 << 3}


class Instruction(Value):
    """One instruction: where it is, its bytes, its mnemonic with prefixes, and its whole text."""

    address: int
    code: bytes
    mnemonic: str
    text: str


class cs_insn(ctypes.Structure):
    """An instruction, from <capstone/capstone.h>."""

    _fields_ = [
        ("id", ctypes.c_uint),
        ("address", ctypes.c_uint64),
        ("size", ctypes.c_uint16),
        ("bytes", ctypes.c_uint8 * 24),
        ("mnemonic", ctypes.c_char * 32),
        ("op_str", ctypes.c_char * 160),
        ("detail", ctypes.c_void_p),
    ]


_libraries: list[ctypes.CDLL | None] = []
"""The library, or None if there is none, once that was looked for."""


def preload() -> None:
    """Map capstone's library, if there is one of a version that is known."""
    if not _libraries:
        _libraries.append(_library())


def is_available() -> bool:
    """Whether there is a library."""
    preload()
    return _libraries[0] is not None


def _library() -> ctypes.CDLL | None:
    for directory in sys.path:
        path = os.path.join(directory, "capstone", "lib", "libcapstone.so")
        if not os.path.exists(path):
            continue
        try:
            library = ctypes.CDLL(path)
            version = library.cs_version(None, None)
        except (OSError, AttributeError):  # not for this machine, or something else of that name
            continue
        if version >> 8 != VERSION:
            continue
        pointer, number = ctypes.c_void_p, ctypes.c_size_t
        library.cs_open.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(number))
        library.cs_disasm.argtypes = (
            *(number, ctypes.c_char_p, number, ctypes.c_uint64, number),
            ctypes.POINTER(ctypes.POINTER(cs_insn)),
        )
        library.cs_disasm.restype = number
        library.cs_free.argtypes = (pointer, number)
        library.cs_close.argtypes = (ctypes.POINTER(number),)
        return library
    return None


def disassemble(code: bytes, address: int, bits: int, most: int = 64) -> list[Instruction]:
    """The instructions of `code`, at most `most`; none without the library."""
    if not is_available():
        return []
    library = _libraries[0]
    assert library is not None
    handle = ctypes.c_size_t()
    if library.cs_open(_ARCH_X86, _MODES[bits], ctypes.byref(handle)):
        return []
    found = ctypes.POINTER(cs_insn)()
    # SAFETY: the library reads len(code) bytes, and writes an array of its own, of `count` instructions,
    # which is read before it is freed.
    count = library.cs_disasm(handle, code, len(code), address, most, ctypes.byref(found))
    try:
        return [
            Instruction(
                one.address,
                bytes(one.bytes[: one.size]),
                one.mnemonic.decode(),
                f"{one.mnemonic.decode()} {one.op_str.decode()}".rstrip(),
            )
            for one in found[:count]
        ]
    finally:
        if count:
            library.cs_free(ctypes.cast(found, ctypes.c_void_p), count)
        library.cs_close(ctypes.byref(handle))


def mnemonic_of(code: bytes, bits: int) -> str | None:
    """The mnemonic that `code` begins with; None if it is none, or without the library."""
    return next((one.mnemonic for one in disassemble(code, 0, bits, most=1)), None)
