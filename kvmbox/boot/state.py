"""The first register state of a vCPU, as plain numbers.

The package does not know KVM: whoever owns the vCPU turns a `CpuState` into KVM_SET_REGS and
KVM_SET_SREGS. The fields are those that an entry convention cares about; everything else (debug
registers, FPU, other MSRs) keeps what the processor has after a reset.

Constants are named after the Intel SDM, volume 3: control registers in 2.5, EFER in 2.2.1, descriptor
types in 3.4.5.1 and 3.5. The states built from them also satisfy the checks that VMX makes on guest
segment registers at VM entry (SDM 27.3.1.2), the strictest consumer: TR is a busy TSS, an absent LDTR is
marked unusable, code and data segments are accessed, and the granularity bit agrees with the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_ET: Final = 1 << 4  # reads as one on every processor since the 486
CR0_NE: Final = 1 << 5
CR0_PG: Final = 1 << 31

CR4_PAE: Final = 1 << 5
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10

EFER_SCE: Final = 1 << 0
EFER_LME: Final = 1 << 8
EFER_LMA: Final = 1 << 10

RFLAGS_ALWAYS: Final = 1 << 1  # bit 1 is reserved and reads as one

TYPE_LDT: Final = 2
TYPE_DATA: Final = 3  # read/write, accessed
TYPE_CODE: Final = 11  # execute/read, accessed
TYPE_BUSY_TSS: Final = 11  # with s = 0

REAL_MODE_LIMIT: Final = 0xFFFF
FLAT_LIMIT: Final = 0xFFFF_FFFF
TSS_LIMIT: Final = 0x67  # the smallest that an available TSS may have


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment register with its hidden part, in the terms of a segment descriptor.

    `limit` is in bytes, whatever `g` says; `unusable` is KVM's and VMX's mark of a register that holds no
    descriptor, and goes with `present` 0.
    """

    base: int
    limit: int
    selector: int
    type: int
    present: int
    dpl: int
    db: int
    s: int
    l: int  # noqa: E741 - the descriptor bit is called L
    g: int
    avl: int = 0
    unusable: int = 0


def flat_segment(selector: int, kind: int, *, long: bool = False, dpl: int = 0) -> Segment:
    """A code or data segment (`kind` TYPE_CODE or TYPE_DATA) over all of 4 GiB; `long` for 64-bit code."""
    return Segment(
        base=0,
        limit=FLAT_LIMIT,
        selector=selector,
        type=kind,
        present=1,
        dpl=dpl,
        db=0 if long else 1,  # L and D together are reserved
        s=1,
        l=1 if long else 0,
        g=1,
    )


def _system_segment(kind: int, limit: int, *, present: int) -> Segment:
    return Segment(
        base=0,
        limit=limit,
        selector=0,
        type=kind,
        present=present,
        dpl=0,
        db=0,
        s=0,
        l=0,
        g=0,
        unusable=1 - present,
    )


# No LDT, and a task register that nothing uses until the guest loads its own.
NO_LDT: Final = _system_segment(TYPE_LDT, 0, present=0)
INITIAL_TSS: Final = _system_segment(TYPE_BUSY_TSS, TSS_LIMIT, present=1)


@dataclass(frozen=True, slots=True)
class CpuState:
    """All registers that a vCPU gets before its first instruction. `gdt` and `idt` are (base, limit)."""

    cs: Segment
    ds: Segment
    es: Segment
    fs: Segment
    gs: Segment
    ss: Segment
    tr: Segment = INITIAL_TSS
    ldt: Segment = NO_LDT
    gdt: tuple[int, int] = (0, 0)
    idt: tuple[int, int] = (0, 0)
    cr0: int = CR0_ET
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = RFLAGS_ALWAYS
