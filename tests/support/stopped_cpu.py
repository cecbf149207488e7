"""Stopped CPUs with a little memory of their own, for the explanation of crashes."""

from __future__ import annotations

from typing import Final

from kvmbox.explain.paging import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.kvm.uapi import kvm_regs, kvm_sregs

PAGE: Final = 4096
TABLES: Final = 0x10_0000
"""Where `Memory.map` puts page tables."""


class Memory:
    """Guest-physical memory by pages; what was never written is not there."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}
        self.next_table = TABLES

    def write(self, address: int, data: bytes) -> None:
        while data:
            page, within = divmod(address, PAGE)
            piece, data = data[: PAGE - within], data[PAGE - within :]
            self.pages.setdefault(page, bytearray(PAGE))[within : within + len(piece)] = piece
            address += len(piece)

    def write_number(self, address: int, value: int, size: int = 8) -> None:
        self.write(address, value.to_bytes(size, "little"))

    def read(self, address: int, size: int) -> bytes:
        found = b""
        while len(found) < size:
            page, within = divmod(address + len(found), PAGE)
            if page not in self.pages:
                break
            found += self.pages[page][within : within + size - len(found)]
        return bytes(found)

    def table(self) -> int:
        """A new, empty page table."""
        address, self.next_table = self.next_table, self.next_table + PAGE
        self.write(address, bytes(PAGE))
        return address

    def map(self, root: int, linear: int, physical: int, flags: int = 7, *, shifts: tuple[int, ...]) -> None:
        """Map a page by tables of 512 entries; the last of `shifts` is the size of the page."""
        table = root
        for shift in shifts[:-1]:
            entry = table + 8 * (linear >> shift & 511)
            value = int.from_bytes(self.read(entry, 8), "little")
            if not value & 1:
                value = self.table() | 7
                self.write_number(entry, value)
            table = value & ~0xFFF
        large = 0x80 if shifts[-1] > 12 else 0
        self.write_number(table + 8 * (linear >> shifts[-1] & 511), physical | flags | large)


def real_mode(memory: Memory, **registers: int) -> Cpu:
    """A CPU in real mode."""
    return _cpu(memory, registers, cr0=0)


def protected_mode(memory: Memory, **registers: int) -> Cpu:
    """A CPU in 32-bit protected mode without paging."""
    cpu = _cpu(memory, registers, cr0=CR0_PE)
    cpu.sregs.cs.db = cpu.sregs.ss.db = 1
    cpu.sregs.cs.limit = 0xFFFF_FFFF
    return cpu


def long_mode(memory: Memory, **registers: int) -> Cpu:
    """A CPU in 64-bit mode, with its first 64 KiB mapped one to one by pages of 4 KiB."""
    cpu = _cpu(memory, registers, cr0=CR0_PE | CR0_PG, cr4=CR4_PAE, efer=EFER_LMA)
    cpu.sregs.cs.l = 1
    cpu.sregs.cr3 = memory.table()
    for page in range(16):
        memory.write(page * PAGE, b"")
        memory.pages.setdefault(page, bytearray(PAGE))
        memory.map(cpu.sregs.cr3, page * PAGE, page * PAGE, shifts=(39, 30, 21, 12))
    return cpu


def _cpu(memory: Memory, registers: dict[str, int], **control: int) -> Cpu:
    general = {name: value for name, value in registers.items() if hasattr(kvm_regs, name)}
    others = {name: value for name, value in registers.items() if name not in general}
    regs = kvm_regs(**{"rflags": 2, "rip": 0x7C00, "rsp": 0x8000, **general})
    sregs = kvm_sregs(**{**control, **others})
    sregs.idt.limit, sregs.ldt.unusable = 0, 1
    return Cpu(regs, sregs, memory.read)


CODE_64: Final = bytes.fromhex("ffff0000009aaf00")
CODE_32: Final = bytes.fromhex("ffff0000009acf00")
DATA: Final = bytes.fromhex("ffff00000092cf00")


def set_gdt(cpu: Cpu, memory: Memory, *descriptors: bytes, at: int = 0x1000) -> None:
    """The null descriptor, and then these."""
    memory.write(at, bytes(8) + b"".join(descriptors))
    cpu.sregs.gdt.base, cpu.sregs.gdt.limit = at, 8 * len(descriptors) + 7


def gate(handler: int, selector: int, access: int = 0x8E, *, wide: bool = True, ist: int = 0) -> bytes:
    """An entry of an IDT, of 16 bytes if `wide`."""
    low = (handler & 0xFFFF).to_bytes(2, "little") + selector.to_bytes(2, "little") + bytes((ist, access))
    low += (handler >> 16 & 0xFFFF).to_bytes(2, "little")
    return low + (handler >> 32).to_bytes(4, "little") + bytes(4) if wide else low


def set_idt(cpu: Cpu, memory: Memory, entry: bytes, *, count: int = 32, at: int = 0x2000) -> None:
    """The same entry for each vector."""
    memory.write(at, entry * count)
    cpu.sregs.idt.base, cpu.sregs.idt.limit = at, len(entry) * count - 1
