"""Instructions as text, by the library capstone (`capstone`).

Four functions of the library are called by ctypes: its Python binding takes 100 ms to import, and imports
modules that a confined kvmbox cannot load.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain import capstone
from kvmbox.explain.mapped_library import load

VERSION: Final = 5
"""The major version of the library that is known."""
_FUNCTIONS: Final = ("cs_version", "cs_open", "cs_disasm", "cs_free", "cs_close")

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


_lock: Final = threading.Lock()


def installed() -> ctypes.CDLL | None:
    """The library, or None if there is none of that version."""
    with _lock:  # of several threads one loads it
        return _installed()


@cache
def _installed() -> ctypes.CDLL | None:
    if (path := capstone.path()) is None:
        return None
    try:
        try:
            found = ctypes.CDLL(path)
        except OSError:  # as in a confined kvmbox
            found = load(capstone.mapped(), _FUNCTIONS)
        return found if found.cs_version(None, None) >> 8 == VERSION else None
    except (OSError, AttributeError):  # not for this machine, or something else of that name
        return None


def disassemble(code: bytes, address: int, bits: int, most: int = 64) -> list[Instruction]:
    """The instructions of `code`, at most `most`; none without the library."""
    library = installed()
    if library is None:
        return []
    pointer, number = ctypes.c_void_p, ctypes.c_size_t
    library.cs_open.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.POINTER(number))
    library.cs_disasm.argtypes = (
        *(number, ctypes.c_char_p, number, ctypes.c_uint64, number),
        ctypes.POINTER(ctypes.POINTER(cs_insn)),
    )
    library.cs_disasm.restype = number
    library.cs_free.argtypes = (pointer, number)
    library.cs_close.argtypes = (ctypes.POINTER(number),)
    handle = number()
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
