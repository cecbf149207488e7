"""Entry conventions: the registers and tables with which each kind of image starts, but for real mode.

All kinds start with interrupts off, A20 open (guest memory has no gate) and an IDT of size 0. The GDT and the
page tables lie in guest memory, in the boot area, where the guest may read, change or leave them.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.boot.boot_area import PAGE_DIRECTORIES, BootArea
from kvmbox.boot.cpu_state import (
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    FLAT_LIMIT,
    TYPE_CODE,
    TYPE_DATA,
    CpuState,
    DescriptorTable,
    Segment,
)

_LARGE_PAGE: Final = 2 * layout.MIB
_PAGE_TABLE: Final = 0x7  # present, writable, user: SDM vol. 3, 4.5
_PAGE_LARGE: Final = 0x87  # the same, and a 2 MiB page
_ENTRIES: Final = 512

_CODE32: Final = Segment(0, FLAT_LIMIT, layout.GDT_CODE32, TYPE_CODE, present=1, db=1, s=1, g=1)
_DATA32: Final = Segment(0, FLAT_LIMIT, layout.GDT_DATA32, TYPE_DATA, present=1, db=1, s=1, g=1)
_CODE64: Final = Segment(0, FLAT_LIMIT, layout.GDT_CODE64, TYPE_CODE, present=1, s=1, l=1, g=1)
_DATA64: Final = Segment(0, FLAT_LIMIT, layout.GDT_DATA64, TYPE_DATA, present=1, db=1, s=1, g=1)
_USER_DATA: Final = Segment(0, FLAT_LIMIT, layout.GDT_USER_DATA, TYPE_DATA, present=1, dpl=3, db=1, s=1, g=1)
_USER_CODE64: Final = Segment(
    0, FLAT_LIMIT, layout.GDT_USER_CODE64, TYPE_CODE, present=1, dpl=3, s=1, l=1, g=1
)
_GDT: Final = (_CODE32, _DATA32, _CODE64, _DATA64, _USER_DATA, _USER_CODE64)
_GDT_LIMIT: Final = 8 * (len(_GDT) + 1) - 1

# Linux names these selectors __BOOT_CS and __BOOT_DS (Documentation/arch/x86/boot.rst).
_BOOT_CS: Final = 0x10
_BOOT_DS: Final = 0x18
_LINUX_CODE32: Final = Segment(0, FLAT_LIMIT, _BOOT_CS, TYPE_CODE, present=1, db=1, s=1, g=1)
_LINUX_DATA: Final = Segment(0, FLAT_LIMIT, _BOOT_DS, TYPE_DATA, present=1, db=1, s=1, g=1)
_LINUX_CODE64: Final = Segment(0, FLAT_LIMIT, _BOOT_CS, TYPE_CODE, present=1, s=1, l=1, g=1)
_LINUX_CODE: Final = {32: _LINUX_CODE32, 64: _LINUX_CODE64}
_LINUX_GDT_LIMIT: Final = _BOOT_DS + 7


def descriptor(segment: Segment) -> int:
    """The 8-byte descriptor of `segment` (SDM vol. 3, figure 3-8)."""
    limit = segment.limit >> 12 if segment.g else segment.limit
    access = segment.type | segment.s << 4 | segment.dpl << 5 | segment.present << 7
    flags = segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3
    return (
        limit & 0xFFFF
        | (segment.base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | flags << 52
        | (segment.base >> 24 & 0xFF) << 56
    )


def gdt(area: BootArea) -> tuple[int, bytes]:
    """The GDT as a write: the null descriptor, then those of the layout's selectors."""
    table = [0] * (len(_GDT) + 1)
    for segment in _GDT:
        table[segment.selector // 8] = descriptor(segment)
    return area.gdt, struct.pack(f"<{len(table)}Q", *table)


def page_tables(area: BootArea) -> tuple[tuple[int, bytes], ...]:
    """Writes that map the first 4 GiB to themselves with 2 MiB pages, writable and open to user mode.

    Not with 1 GiB pages, which are an optional feature of the processor.
    """
    pointers = [
        area.page_directories + index * layout.PAGE_SIZE | _PAGE_TABLE for index in range(PAGE_DIRECTORIES)
    ]
    pages = [index * _LARGE_PAGE | _PAGE_LARGE for index in range(PAGE_DIRECTORIES * _ENTRIES)]
    return (
        (area.pml4, struct.pack("<Q", area.pdpt | _PAGE_TABLE)),
        (area.pdpt, struct.pack(f"<{len(pointers)}Q", *pointers)),
        (area.page_directories, struct.pack(f"<{len(pages)}Q", *pages)),
    )


def protected_mode_state(
    area: BootArea,
    entry: int,
    *,
    eax: int = 0,
    ebx: int = 0,
    cr0: int = CR0_PE | CR0_MP | CR0_ET | CR0_NE,
) -> CpuState:
    """32-bit flat protected mode, paging off: the machine state of Multiboot 1 (its section 3.2) and 2 (3.3).

    Both leave ESP undefined. There is a stack all the same, as other loaders leave one: kernels push before
    they set up their own.
    """
    return CpuState(
        cs=_CODE32,
        data=_DATA32,
        ss=_DATA32,
        gdt=DescriptorTable(area.gdt, _GDT_LIMIT),
        cr0=cr0,
        rax=eax,
        rbx=ebx,
        rsp=area.stack_top,
        rip=entry,
    )


def pvh_state(area: BootArea, entry: int, start_info: int) -> CpuState:
    """The machine state of PVH (Xen, docs/misc/pvh.pandoc): of CR0, PE is set, and ET, which always is."""
    return protected_mode_state(area, entry, ebx=start_info, cr0=CR0_PE | CR0_ET)


def linux_gdt(area: BootArea, bits: int) -> tuple[int, bytes]:
    """The GDT for a Linux entry, as a write: __BOOT_CS is 0x10 and __BOOT_DS 0x18, both flat."""
    return area.gdt, struct.pack("<4Q", 0, 0, descriptor(_LINUX_CODE[bits]), descriptor(_LINUX_DATA))


def linux_state(area: BootArea, bits: int, entry: int, boot_params: int) -> CpuState:
    """The state of Linux' 32-bit and 64-bit boot protocols (Documentation/arch/x86/boot.rst), by `bits`.

    The 64-bit one has the page tables of `page_tables`. Neither needs a stack; there is one all the same.
    """
    state = long_mode_state(area, entry) if bits == 64 else protected_mode_state(area, entry)
    return state.replaced(
        cs=_LINUX_CODE[bits],
        data=_LINUX_DATA,
        ss=_LINUX_DATA,
        gdt=DescriptorTable(area.gdt, _LINUX_GDT_LIMIT),
        cr4=state.cr4 & CR4_PAE,
        rsi=boot_params,
    )


def long_mode_state(
    area: BootArea, entry: int, *, rax: int = 0, rbx: int = 0, rdi: int = 0, rsi: int = 0
) -> CpuState:
    """64-bit mode with the page tables of `page_tables`; SSE moves are enabled.

    RSP is a multiple of 16, as the psABI wants it at a program's first instruction (not at a function's).
    """
    state = protected_mode_state(area, entry, eax=rax, ebx=rbx)
    return state.replaced(
        cs=_CODE64,
        data=_DATA64,
        ss=_DATA64,
        cr0=state.cr0 | CR0_PG,
        cr3=area.pml4,
        cr4=CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT,
        efer=EFER_LME | EFER_LMA,
        rdi=rdi,
        rsi=rsi,
    )
