"""A stopped CPU and the memory that it sees, as values to look at."""

from __future__ import annotations

from typing import Final

from kvmbox.explain.paging import CR0_PE, EFER_LMA, ReadPhysical, Walk, walk
from kvmbox.kvm.uapi import kvm_regs, kvm_sregs

RFLAGS_IF: Final = 1 << 9
RFLAGS_VM: Final = 1 << 17
PAGE: Final = 4096


class Cpu:
    """A CPU that does not run: `number`, registers, and guest-physical memory."""

    def __init__(self, regs: kvm_regs, sregs: kvm_sregs, read: ReadPhysical, number: int = 0) -> None:
        self.number: Final = number
        self.regs: Final = regs
        self.sregs: Final = sregs
        self.read_physical: Final = read

    @property
    def is_real(self) -> bool:
        """Whether addresses are segments and offsets: real mode, or virtual-8086 mode."""
        return not self.sregs.cr0 & CR0_PE or bool(self.regs.rflags & RFLAGS_VM)

    @property
    def long_mode(self) -> bool:
        """Whether IA-32e mode is active: tables have their 64-bit forms."""
        return bool(self.sregs.efer & EFER_LMA)

    @property
    def bits(self) -> int:
        """The size of code: 16, 32 or 64."""
        if self.is_real:
            return 16
        if self.long_mode and self.sregs.cs.l:
            return 64
        return 32 if self.sregs.cs.db else 16

    @property
    def cpl(self) -> int:
        """The privilege level; 0 in real mode."""
        if not self.sregs.cr0 & CR0_PE:
            return 0
        return 3 if self.regs.rflags & RFLAGS_VM else int(self.sregs.ss.dpl)

    @property
    def pc(self) -> int:
        """The linear address of the next instruction."""
        return self._linear(self.sregs.cs.base, self.regs.rip)

    @property
    def sp(self) -> int:
        """The linear address of the top of the stack."""
        rsp = self.regs.rsp
        if self.bits != 64 and not self.sregs.ss.db:
            rsp &= 0xFFFF
        return self._linear(self.sregs.ss.base, rsp)

    def _linear(self, base: int, offset: int) -> int:
        if self.bits == 64:  # no base counts but those of FS and GS
            return offset & (1 << 64) - 1
        return base + offset & 0xFFFF_FFFF

    def walk(self, linear: int) -> Walk:
        """Translate a linear address."""
        registers = self.sregs
        return walk(linear, registers.cr0, registers.cr3, registers.cr4, registers.efer, self.read_physical)

    def read(self, linear: int, size: int) -> bytes:
        """The bytes at a linear address, up to the first that is not there."""
        found = b""
        while len(found) < size:
            place = self.walk(linear + len(found) & (1 << 64) - 1)
            if place.physical is None:
                break
            wanted = min(size - len(found), PAGE - place.physical % PAGE)
            piece = self.read_physical(place.physical, wanted)
            found += piece
            if len(piece) < wanted:
                break
        return found

    def number_at(self, linear: int, size: int) -> int | None:
        """A little-endian number in memory, or None where it is not all there."""
        raw = self.read(linear, size)
        return int.from_bytes(raw, "little") if len(raw) == size else None
