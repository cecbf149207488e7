"""The registers of a vCPU as text, for crash reports: the layout that `info registers` users know.

Outside of long mode they have 32 bits, and there are eight of them.
"""

from __future__ import annotations

from typing import Final

from kvmbox.kvm.uapi import kvm_dtable, kvm_regs, kvm_segment, kvm_sregs
from kvmbox.kvm.vcpu import RESET_CS_BASE, RESET_RIP

_RFLAGS: Final = (
    (0, "CF"),
    (2, "PF"),
    (4, "AF"),
    (6, "ZF"),
    (7, "SF"),
    (8, "TF"),
    (9, "IF"),
    (10, "DF"),
    (11, "OF"),
    (14, "NT"),
    (16, "RF"),
    (17, "VM"),
    (18, "AC"),
)
_GENERAL: Final = "rax rbx rcx rdx rsi rdi rbp rsp"
_MORE: Final = "r8 r9 r10 r11 r12 r13 r14 r15"
_SEGMENTS: Final = "cs ds es fs gs ss tr ldt"
_CR0_PE: Final = 1 << 0
_EFER_LMA: Final = 1 << 10
_RFLAGS_VM: Final = 1 << 17
_COLUMNS: Final = 4


def is_reset(regs: kvm_regs, sregs: kvm_sregs) -> bool:
    """Whether the vCPU is where it begins after a reset."""
    at_start = regs.rip == RESET_RIP and sregs.cs.base == RESET_CS_BASE
    return bool(at_start and not sregs.cr0 & _CR0_PE)


def cpu_mode(regs: kvm_regs, sregs: kvm_sregs) -> str:
    """The mode the vCPU is in: "real mode", "64-bit mode", …, with the privilege level where there is one."""
    if not sregs.cr0 & _CR0_PE:
        return "real mode"
    if regs.rflags & _RFLAGS_VM:
        return "virtual-8086 mode"
    if sregs.efer & _EFER_LMA:
        width = "64-bit mode" if sregs.cs.l else "compatibility mode"
    else:
        width = "32-bit protected mode" if sregs.cs.db else "16-bit protected mode"
    return f"{width}, CPL {sregs.ss.dpl}"


def _segment(name: str, segment: kvm_segment, digits: int) -> str:
    bits = f"type={segment.type:x} s={segment.s} dpl={segment.dpl} p={segment.present}"
    bits += f" l={segment.l} db={segment.db} g={segment.g}"
    note = " unusable" if segment.unusable else ""
    return f"{name:<4}{segment.selector:04x} {segment.base:0{digits}x} {segment.limit:08x} {bits}{note}"


def _table(name: str, table: kvm_dtable, digits: int) -> str:
    return f"{name:<4}     {table.base:0{digits}x} {table.limit:08x}"


def flags_in_words(rflags: int) -> str:
    """The flags that are set, and what they mean for interrupts and for input and output."""
    names = " ".join(name for bit, name in _RFLAGS if rflags >> bit & 1)
    return f"[{names}] interrupts {'on' if rflags >> 9 & 1 else 'off'}, IOPL {rflags >> 12 & 3}"


def format_registers(regs: kvm_regs, sregs: kvm_sregs) -> str:
    """Several lines, no final newline: mode, then general, segment, table and control registers, in hex."""
    wide = bool(sregs.efer & _EFER_LMA)
    digits, letter, names = (16, "R", f"{_GENERAL} {_MORE}") if wide else (8, "E", _GENERAL)
    mask = (1 << 4 * digits) - 1

    def cell(name: str) -> str:
        shown = name.upper() if wide else letter + name[1:].upper()
        return f"{shown:<3}={getattr(regs, name) & mask:0{digits}x}"

    cells = [cell(name) for name in names.split()]
    lines = [f"CPU in {cpu_mode(regs, sregs)}, RIP={regs.rip & mask:#x}"]
    lines += [" ".join(cells[i : i + _COLUMNS]) for i in range(0, len(cells), _COLUMNS)]
    pointer = f"{letter}IP={regs.rip & mask:0{digits}x}"
    lines.append(f"{pointer} {letter}FLAGS={regs.rflags:08x} {flags_in_words(regs.rflags)}")
    lines += [_segment(name.upper(), getattr(sregs, name), digits) for name in _SEGMENTS.split()]
    lines += [_table("GDT", sregs.gdt, digits), _table("IDT", sregs.idt, digits)]
    lines.append(
        f"CR0={sregs.cr0:08x} CR2={sregs.cr2:0{digits}x} CR3={sregs.cr3:0{digits}x} CR4={sregs.cr4:08x}"
    )
    lines.append(f"EFER={sregs.efer:016x} APIC_BASE={sregs.apic_base:016x}")
    return "\n".join(lines)
