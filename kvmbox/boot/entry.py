"""The processor at the first instruction: GDT, page tables and register state of each entry.

The selectors and addresses are those of `layout`. The GDT in guest memory and the hidden parts of the
segment registers are made from the same `Segment`s, so that reloading a selector changes nothing.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox import layout
from kvmbox.boot import state
from kvmbox.boot.state import CpuState, Segment
from kvmbox.memory import GuestMemory

MULTIBOOT_MAGIC: Final = 0x2BADB002  # in EAX: Multiboot Specification 0.6.96, section 3.2

_CODE32: Final = state.flat_segment(layout.GDT_CODE32, state.TYPE_CODE)
_DATA32: Final = state.flat_segment(layout.GDT_DATA32, state.TYPE_DATA)
_CODE64: Final = state.flat_segment(layout.GDT_CODE64, state.TYPE_CODE, long=True)
_DATA64: Final = state.flat_segment(layout.GDT_DATA64, state.TYPE_DATA)
_USER_DATA: Final = state.flat_segment(layout.GDT_USER_DATA | 3, state.TYPE_DATA, dpl=3)
_USER_CODE64: Final = state.flat_segment(layout.GDT_USER_CODE64 | 3, state.TYPE_CODE, long=True, dpl=3)
_GDT: Final = (_CODE32, _DATA32, _CODE64, _DATA64, _USER_DATA, _USER_CODE64)
_RPL: Final = 3

_DESCRIPTOR_SIZE: Final = 8
_PAGE_TABLE_ENTRIES: Final = 512
_LARGE_PAGE: Final = 2 * layout.MIB

# Page-table bits: Intel SDM volume 3, 4.5.4.
_PAGE_PRESENT: Final = 1 << 0
_PAGE_WRITABLE: Final = 1 << 1
_PAGE_USER: Final = 1 << 2
_PAGE_LARGE: Final = 1 << 7
_PAGE_FLAGS: Final = _PAGE_PRESENT | _PAGE_WRITABLE | _PAGE_USER


def descriptor(segment: Segment) -> int:
    """The eight bytes of a segment's descriptor as a number (Intel SDM volume 3, 3.4.5)."""
    limit = segment.limit >> 12 if segment.g else segment.limit
    low = limit & 0xFFFF | (segment.base & 0xFFFF) << 16
    high = segment.base >> 16 & 0xFF | segment.base & 0xFF00_0000
    high |= segment.type << 8 | segment.s << 12 | segment.dpl << 13 | segment.present << 15
    high |= limit & 0xF_0000 | segment.avl << 20 | segment.l << 21 | segment.db << 22 | segment.g << 23
    return high << 32 | low


def write_gdt(memory: GuestMemory) -> tuple[int, int]:
    """Put the GDT at layout.BOOT_GDT; returns what GDTR gets, as (base, limit)."""
    table = bytearray(max(segment.selector & ~_RPL for segment in _GDT) + _DESCRIPTOR_SIZE)
    for segment in _GDT:
        struct.pack_into("<Q", table, segment.selector & ~_RPL, descriptor(segment))
    memory.write(layout.BOOT_GDT, table)
    return layout.BOOT_GDT, len(table) - 1


def write_page_tables(memory: GuestMemory) -> int:
    """Identity-map the first 4 GiB with 2 MiB pages, writable and user-accessible; returns CR3.

    Every level is user-accessible: without that bit in all of them a guest that goes to CPL 3 would have to
    replace the tables first.
    """
    directories = [layout.BOOT_PAGE_DIRECTORIES + index * layout.PAGE_SIZE for index in range(4)]
    memory.write(layout.BOOT_PML4, _table([layout.BOOT_PDPT | _PAGE_FLAGS]))
    memory.write(layout.BOOT_PDPT, _table([directory | _PAGE_FLAGS for directory in directories]))
    for index, directory in enumerate(directories):
        first = index * _PAGE_TABLE_ENTRIES
        pages = range(first, first + _PAGE_TABLE_ENTRIES)
        memory.write(directory, _table([page * _LARGE_PAGE | _PAGE_LARGE | _PAGE_FLAGS for page in pages]))
    return layout.BOOT_PML4


def _table(entries: list[int]) -> bytes:
    entries = entries + [0] * (_PAGE_TABLE_ENTRIES - len(entries))
    return struct.pack(f"<{_PAGE_TABLE_ENTRIES}Q", *entries)


def protected_mode_state(memory: GuestMemory, entry: int, *, stack: int) -> CpuState:
    """Flat 32-bit protected mode at `entry`: paging and interrupts off, EBX at the boot information."""
    return CpuState(
        cs=_CODE32,
        ds=_DATA32,
        es=_DATA32,
        fs=_DATA32,
        gs=_DATA32,
        ss=_DATA32,
        gdt=write_gdt(memory),
        cr0=state.CR0_PE | state.CR0_ET,
        rax=MULTIBOOT_MAGIC,
        rbx=layout.BOOT_INFO,
        rsp=stack,
        rip=entry,
    )


def long_mode_state(memory: GuestMemory, entry: int) -> CpuState:
    """64-bit mode at `entry`: the first 4 GiB mapped, interrupts off, RDI and RBX at the boot information.

    SSE is enabled, as compilers use it freely in 64-bit code. CR0.WP stays clear: the map has no read-only
    page, and a guest that builds its own decides for itself.
    """
    return CpuState(
        cs=_CODE64,
        ds=_DATA64,
        es=_DATA64,
        fs=_DATA64,
        gs=_DATA64,
        ss=_DATA64,
        gdt=write_gdt(memory),
        cr0=state.CR0_PE | state.CR0_MP | state.CR0_ET | state.CR0_NE | state.CR0_PG,
        cr3=write_page_tables(memory),
        cr4=state.CR4_PAE | state.CR4_OSFXSR | state.CR4_OSXMMEXCPT,
        efer=state.EFER_LME | state.EFER_LMA | state.EFER_SCE,
        rax=MULTIBOOT_MAGIC,
        rbx=layout.BOOT_INFO,
        rdi=layout.BOOT_INFO,
        rsp=layout.BOOT_STACK_TOP,
        rip=entry,
    )
