"""A C structure in a device model: what an index beyond its end does there, and Python would not let happen.

`tools.planted` copies this module into `kvmbox/devices` of its scratch copy. A `Block` is a buffer with a
pointer to a function behind it, as many of QEMU's device states have. Nothing looks at an index.

With KVMBOX_PLANTED_GUARD in the environment, which device processes do not have, a page that nobody may touch
is behind the buffer instead: what AddressSanitizer is to a fuzzer of C.
"""

from __future__ import annotations

import ctypes
import mmap
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

GUARDED: Final = "KVMBOX_PLANTED_GUARD" in os.environ
POINTER: Final = 8
BEHIND: Final = 1 << 20
"""Bytes of the same heap that are there behind a buffer."""

_libc = ctypes.CDLL(None)
_Function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)
_HARMLESS: Final = ctypes.cast(_libc.labs, ctypes.c_void_p).value or 0
_libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Block:
    """`size` bytes, and a pointer to a function."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._memory: ctypes.Array[ctypes.c_char] | mmap.mmap
        if GUARDED:
            pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory = mmap.mmap(-1, pages + mmap.PAGESIZE)
            first = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
            # SAFETY: the last page of a mapping of its own, which nothing else uses.
            _libc.mprotect(first + pages, mmap.PAGESIZE, 0)
            self._first = first + pages - size
        else:
            self._memory = ctypes.create_string_buffer(size + BEHIND)
            self._first = ctypes.addressof(self._memory)
            self[size : size + POINTER] = _HARMLESS.to_bytes(POINTER, "little")

    def __getitem__(self, index: int) -> int:
        # SAFETY: none, on purpose: this is the bug.
        return ctypes.c_ubyte.from_address(self._first + index).value

    def __setitem__(self, index: int | slice, value: int | bytes) -> None:
        # SAFETY: as above.
        if isinstance(index, slice) or isinstance(value, bytes):
            assert isinstance(index, slice)
            assert isinstance(value, bytes)
            ctypes.memmove(self._first + index.start, value, index.stop - index.start)
        else:
            ctypes.c_ubyte.from_address(self._first + index).value = value

    def view(self) -> memoryview:
        """The buffer as it should be seen: with bounds."""
        # SAFETY: the memory is there as long as this object.
        return memoryview((ctypes.c_ubyte * self._size).from_address(self._first)).cast("B")

    def call(self) -> None:
        """Call what the pointer says, with the buffer, as a controller does at the end of a command."""
        if not GUARDED:
            # SAFETY: none: the guest may have written there.
            _Function.from_address(self._first + self._size)(self._first)


class Fifo:
    """A FIFO of `size` characters by two indices that begin anew only when it is empty or cleared."""

    def __init__(self, size: int) -> None:
        self._block = Block(size)
        self._put = self._get = 0

    def __len__(self) -> int:
        return max(self._put - self._get, 0)

    def __bytes__(self) -> bytes:
        return bytes(self._block[index] for index in range(self._get, self._put))

    def __iadd__(self, characters: bytes) -> Fifo:
        for character in characters:
            self.append(character)
        return self

    def append(self, character: int) -> None:
        """A character comes."""
        self._block[self._put] = character
        self._put += 1

    def pop(self, _first: int) -> int:
        """The oldest one goes."""
        character = self._block[self._get]
        self._get += 1
        if self._get == self._put:
            self._put = self._get = 0
        return character

    def clear(self) -> None:
        """The guest clears it."""
        self._put = self._get = 0
        self._block.call()

    def replace(self, characters: bytes) -> None:
        """Have these characters, and no others."""
        self._put = self._get = 0
        self.__iadd__(characters)


class Words:
    """A block as words of 32 bits."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def __getitem__(self, index: int) -> int:
        return int.from_bytes(bytes(self._block[4 * index + byte] for byte in range(4)), "little")

    def __setitem__(self, index: int, value: int) -> None:
        self._block[4 * index : 4 * index + 4] = value.to_bytes(4, "little")
