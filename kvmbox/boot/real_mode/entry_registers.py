"""The registers of a processor that starts in real mode: after a reset, at an entry, or waking from S3.

Interrupts are off, A20 is open (guest memory has no gate), and the vector table is at 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kvmbox.boot.cpu_state import REAL_MODE_LIMIT, TYPE_CODE, TYPE_DATA, CpuState, DescriptorTable, Segment

if TYPE_CHECKING:
    from kvmbox.firmware.builtin_bios import Entry

_VECTOR_TABLE: Final = DescriptorTable(0, 0x3FF)
REAL_MODE_DRIVE: Final = 0x80  # DL: the first hard disk, as a BIOS would say


def _real_mode_segment(selector: int, segment_type: int) -> Segment:
    return Segment(selector << 4, REAL_MODE_LIMIT, selector, segment_type, present=1, s=1)


def reset_state(code_base: int) -> CpuState:
    """The processor after a reset, at F000:FFF0, with `code_base` behind the selector of CS.

    See Intel SDM volume 3, table 10-1.
    """
    data = _real_mode_segment(0, TYPE_DATA)
    return CpuState(
        cs=Segment(code_base, REAL_MODE_LIMIT, 0xF000, TYPE_CODE, present=1, s=1),
        data=data,
        ss=data,
        idt=_VECTOR_TABLE,
        gdt=DescriptorTable(0, 0xFFFF),
        rip=0xFFF0,
    )


def real_mode_state(entry: Entry) -> CpuState:
    """Real mode at `entry`."""
    data = _real_mode_segment(entry.data, TYPE_DATA)
    return CpuState(
        cs=_real_mode_segment(entry.cs, TYPE_CODE),
        data=data,
        ss=_real_mode_segment(entry.ss, TYPE_DATA),
        idt=_VECTOR_TABLE,
        rdx=REAL_MODE_DRIVE,
        rsp=entry.sp,
        rip=entry.ip,
    )


def waking_state(vector: int) -> CpuState:
    """Real mode at `vector` (below 1 MiB), as firmware enters an OS that wakes from S3: ACPI 6.5, 5.2.10.

    CS is the vector divided by 16 and IP the rest. The other registers, and so the stack, are the OS's care.
    """
    data = _real_mode_segment(0, TYPE_DATA)
    return CpuState(
        cs=_real_mode_segment(vector >> 4, TYPE_CODE),
        data=data,
        ss=data,
        idt=_VECTOR_TABLE,
        rip=vector & 0xF,
    )
