"""The first register state of a vCPU, as plain numbers.

The package does not know KVM. The owner of the vCPU passes a `CpuState` to KVM_SET_REGS and
KVM_SET_SREGS. The fields are those that an entry convention can care about; everything else (debug
registers, FPU, other MSRs) keeps what the processor has after a reset.

Constants are named after the Intel SDM, volume 3: control registers in 2.5, EFER in 2.2.1, descriptor
types in 3.4.5.1 and 3.5. The states built from them also satisfy the checks that VMX makes on guest
segment registers at VM entry (SDM 27.3.1.2), the strictest consumer: TR is a busy TSS, an absent LDTR is
marked unusable, code and data segments are accessed, and the granularity bit agrees with the limit.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value

CR0_PE: Final = 1 << 0
CR0_MP: Final = 1 << 1
CR0_ET: Final = 1 << 4  # reads as one on every processor since the 486
CR0_NE: Final = 1 << 5  # VMX operation requires it
CR0_PG: Final = 1 << 31

CR4_PAE: Final = 1 << 5
CR4_OSFXSR: Final = 1 << 9
CR4_OSXMMEXCPT: Final = 1 << 10

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


class Segment(Value):
    """A segment register with its hidden part, in the terms of a segment descriptor.

    `limit` is in bytes, whatever `g` says. A register with `present` 0 is unusable.
    """

    base: int = 0
    limit: int = 0
    selector: int = 0
    type: int = 0
    present: int = 0
    dpl: int = 0
    db: int = 0
    s: int = 0
    l: int = 0  # noqa: E741 - the descriptor bit is called L
    g: int = 0
    avl: int = 0


class DescriptorTable(Value):
    """GDTR or IDTR: where the table is, and its size in bytes less one."""

    base: int = 0
    limit: int = 0


# No LDT, and a task register that nothing uses until the guest loads its own.
NO_LDT: Final = Segment(type=TYPE_LDT)
INITIAL_TSS: Final = Segment(limit=TSS_LIMIT, type=TYPE_BUSY_TSS, present=1)


class CpuState(Value):
    """What a vCPU gets before its first instruction. `data` is in DS, ES, FS and GS.

    Other general registers are 0. LDTR, TR and RFLAGS are `NO_LDT`, `INITIAL_TSS` and `RFLAGS_ALWAYS`.
    """

    cs: Segment
    data: Segment
    ss: Segment
    gdt: DescriptorTable = DescriptorTable()
    idt: DescriptorTable = DescriptorTable()
    cr0: int = CR0_ET
    cr3: int = 0
    cr4: int = 0
    efer: int = 0
    rax: int = 0
    rbx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rip: int = 0
