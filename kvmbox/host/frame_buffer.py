"""The frame buffer: memory of the guest, which is there once the guest uses it.

Theory of operation
-------------------
The frame buffer is shared anonymous memory with a slot of its own. What the guest sees of it at 0xA0000 is no
slot: there, the pages of RAM are replaced in the VMM's own mapping of guest memory, by mremap of no bytes,
which maps shared pages a second time. KVM follows the mapping. So a change of banks costs no change of slots,
and other vCPUs go on meanwhile.

When RAM is there again it reads as zero, as does all that a VGA's own modes have not drawn yet.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.errors import KvmboxError
from kvmbox.base.memory import MAP_NORESERVE, GuestMemory, MemoryRegion, host_address_of
from kvmbox.host.process.threads import why_no_memory

if TYPE_CHECKING:
    from kvmbox.contract.bulk_data import FrameBuffer

# <linux/mman.h>, <asm-generic/mman.h>
MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MAP_FIXED: Final = 0x10
_FAILED: Final = ctypes.c_void_p(-1).value

_libc: Final = ctypes.CDLL(None, use_errno=True)
_mremap: Final = _libc.mremap
_mremap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p)
_mremap.restype = ctypes.c_void_p
_mmap: Final = _libc.mmap
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
    ctypes.c_long,
)
_mmap.restype = ctypes.c_void_p


def show(memory: GuestMemory, effect: FrameBuffer) -> None:
    """Do what the effect asks for. It comes from a device process, so each number is brought into range.

    Raises KvmboxError if the host refuses it, as all functions here do.
    """
    region = frame_buffer(memory)
    clear = min(effect.clear, region.size)
    if clear:
        _clear(region, clear)
    show_window(memory, effect.bank if effect.shown else None)


def frame_buffer(memory: GuestMemory) -> MemoryRegion:
    """The frame buffer of the guest, which is made if there is none."""
    if not memory.video:
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        with _reported("make a frame buffer"):
            pages = mmap.mmap(-1, layout.FRAME_BUFFER_SIZE, flags=flags)
            withhold(pages, 0, layout.FRAME_BUFFER_SIZE)
        address = host_address_of(pages)
        memory.video.append(MemoryRegion(layout.FRAME_BUFFER, layout.FRAME_BUFFER_SIZE, pages, address))
        memory.add_span(memory.video[0])
        memory.show_video(memory.video)
    return memory.video[0]


def show_window(memory: GuestMemory, bank: int | None) -> None:
    """The 64 KiB number `bank` of the frame buffer are at 0xA0000; None: RAM is, and reads as zero.

    Without RAM at 0xA0000 nothing is there.
    """
    ram, size = memory.regions[0], layout.VIDEO_WINDOW_SIZE
    if not memory.contains(layout.VGA_MEMORY, size):
        return
    window = ram.host_address + layout.VGA_MEMORY
    with _reported("change what of the frame buffer is at 0xa0000"):
        # SAFETY: both calls replace the mapping of whole pages, which are inside of the RAM of
        # `memory`. The object that has mapped it unmaps what is there in the end, whatever it is.
        if bank is None:
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED
            placed = _mmap(window, size, protection, flags, -1, 0)
        else:
            region = frame_buffer(memory)
            piece = region.host_address + bank * size % region.size
            placed = _mremap(piece, 0, size, MREMAP_MAYMOVE | MREMAP_FIXED, window)
        if placed == _FAILED:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        withhold(ram.pages, layout.VGA_MEMORY, size)
    memory.shows_video = bank is not None


@contextmanager
def _reported(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = why_no_memory() or "the host needs memory for 16 MiB more, and mappings (vm.max_map_count)"
        raise KvmboxError(f"cannot {doing}: {error.strerror}", hint=hint) from error


def withhold(pages: mmap.mmap, start: int, size: int) -> None:
    """A core dump of the VMM must not hold the guest's memory, and no child may inherit it."""
    pages.madvise(mmap.MADV_DONTDUMP, start, size)
    pages.madvise(mmap.MADV_DONTFORK, start, size)


def _clear(region: MemoryRegion, size: int) -> None:
    whole = size // layout.PAGE_SIZE * layout.PAGE_SIZE
    if whole:
        with _reported("clear the frame buffer"):
            region.pages.madvise(mmap.MADV_REMOVE, 0, whole)
    region.pages[whole:size] = bytes(size - whole)
