"""Flat 16-bit images: bytes at an address, entered in real mode as a BIOS enters a boot sector.

There is no BIOS: the interrupt vectors and the BIOS data area are zero, and `int 0x10` leads nowhere.
"""

from __future__ import annotations

from typing import Final

from kvmbox import layout
from kvmbox.boot import state
from kvmbox.boot.image import GuestImage
from kvmbox.boot.segments import memory_hint
from kvmbox.boot.state import CpuState, Segment
from kvmbox.memory import GuestMemory

# What a BIOS passes in DL when it boots from the first hard disk, and what boot sectors expect there.
FIRST_HARD_DISK: Final = 0x80
# SS:SP: below the usual boot sector, where many BIOSes leave it and many boot sectors put it.
STACK_TOP: Final = layout.REAL_MODE_LOAD_ADDRESS
VECTOR_TABLE_LIMIT: Final = 0x3FF

_MAX_SEGMENT_OFFSET: Final = 0xFFFF


def load_real_mode(image: GuestImage, memory: GuestMemory, load_address: int | None) -> CpuState:
    """Put the image at `load_address` (default 0x7c00); ImageError unless it fits below 640 KiB and into RAM."""
    address = layout.REAL_MODE_LOAD_ADDRESS if load_address is None else load_address
    end = address + len(image.data)
    if not 0 <= address < layout.LOW_MEMORY_END or end > layout.LOW_MEMORY_END:
        raise image.error(
            f"{len(image.data)} bytes at {address:#x} do not fit below {layout.LOW_MEMORY_END:#x}, where a flat 16-bit"
            " image must end",
            hint="choose a lower --load-address, or boot an ELF or Multiboot image without --mode real",
        )
    if not memory.contains(address, len(image.data)):
        raise image.error(
            f"{len(image.data)} bytes at {address:#x} do not fit into the guest's memory of {memory.size} bytes",
            hint=memory_hint(end),
        )
    memory.write(address, image.data)
    segment, offset = (0, address) if address <= _MAX_SEGMENT_OFFSET else (address >> 4, address & 0xF)
    data = _segment(0, state.TYPE_DATA)
    return CpuState(
        cs=_segment(segment, state.TYPE_CODE),
        ds=data,
        es=data,
        fs=data,
        gs=data,
        ss=data,
        idt=(0, VECTOR_TABLE_LIMIT),
        rdx=FIRST_HARD_DISK,
        rsp=STACK_TOP,
        rip=offset,
    )


def _segment(selector: int, kind: int) -> Segment:
    return Segment(
        base=selector << 4,
        limit=state.REAL_MODE_LIMIT,
        selector=selector,
        type=kind,
        present=1,
        dpl=0,
        db=0,
        s=1,
        l=0,
        g=0,
    )
