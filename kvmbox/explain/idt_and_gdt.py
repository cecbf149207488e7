"""Entries of the IDT and the GDT, and why an exception cannot be delivered through one (Intel SDM volume 3,
chapters 3 and 6).
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.stopped_cpu import Cpu

NAMES: Final = {
    0: ("#DE", "divide error"),
    1: ("#DB", "debug exception"),
    2: ("NMI", "non-maskable interrupt"),
    3: ("#BP", "breakpoint"),
    4: ("#OF", "overflow"),
    5: ("#BR", "bound exceeded"),
    6: ("#UD", "invalid opcode"),
    7: ("#NM", "device not available"),
    8: ("#DF", "double fault"),
    10: ("#TS", "invalid TSS"),
    11: ("#NP", "segment not present"),
    12: ("#SS", "stack fault"),
    13: ("#GP", "general protection"),
    14: ("#PF", "page fault"),
    16: ("#MF", "x87 error"),
    17: ("#AC", "alignment check"),
    19: ("#XM", "SIMD error"),
}
DOUBLE_FAULT: Final = 8
PAGE_FAULT: Final = 14

_TASK_GATE: Final = 5
_GATES: Final = {6: "16-bit interrupt gate", 7: "16-bit trap gate", 14: "interrupt gate", 15: "trap gate"}
_CODE: Final = 0x18
"""Type bits of a code segment: S, and the executable bit."""


def name_of(vector: int) -> str:
    """ "#PF (page fault)", or "vector 0x30"."""
    short, long = NAMES.get(vector, ("", ""))
    return f"{short} ({long})" if short else f"vector {vector:#x}"


class Delivery(Value):
    """How the IDT would deliver `vector`: the entry as far as it could be read, and the `problem`, if any.

    `address` is the linear address of the entry. `handler` is the linear address of the handler.
    """

    vector: int
    address: int
    raw: bytes
    handler: int | None
    problem: str

    def __str__(self) -> str:
        shown = self.raw.hex(" ") if self.raw else "unreadable"
        return f"IDT[{self.vector}] at {self.address:#x} = {shown}"


def delivery(cpu: Cpu, vector: int) -> Delivery:
    """How `cpu` would deliver an exception."""
    if not cpu.sregs.cr0 & 1:
        return _real_mode(cpu, vector)
    size = 16 if cpu.long_mode else 8
    table = cpu.sregs.idt
    address = table.base + size * vector
    if size * vector + size - 1 > table.limit:
        entries = (table.limit + 1) // size
        there = "the IDT has no entry at all" if entries == 0 else f"the IDT ends behind entry {entries - 1}"
        return Delivery(vector, address, b"", None, f"{there} (limit {table.limit:#x})")
    raw = cpu.read(address, size)
    if len(raw) < size:
        return Delivery(vector, address, raw, None, f"the IDT is not mapped: {_why(cpu, address)}")
    selector = int.from_bytes(raw[2:4], "little")
    kind, is_system, present = raw[5] & 0xF, not raw[5] & 0x10, raw[5] & 0x80
    handler = int.from_bytes(raw[0:2] + raw[6:8], "little")
    if cpu.long_mode:
        handler |= int.from_bytes(raw[8:12], "little") << 32
    elif kind in (6, 7):
        handler &= 0xFFFF
    if not any(raw):
        problem = "the entry is empty"
    elif not is_system or (kind not in _GATES and not (kind == _TASK_GATE and not cpu.long_mode)):
        problem = f"the entry is no gate (type {raw[5] & 0x1F:#x})"
    elif cpu.long_mode and kind not in (14, 15):
        problem = f"the entry is a {_GATES[kind]}, which long mode does not know"
    elif not present:
        problem = "the entry is not present"
    elif kind == _TASK_GATE:
        return Delivery(vector, address, raw, None, "")
    else:
        problem = _selector_problem(cpu, selector) or _handler_problem(cpu, handler, selector)
        problem = problem or _stack_problem(cpu, raw)
    return Delivery(vector, address, raw, handler, problem)


def _real_mode(cpu: Cpu, vector: int) -> Delivery:
    address = cpu.sregs.idt.base + 4 * vector
    raw = cpu.read(address, 4)
    problem = ""
    if 4 * vector + 3 > cpu.sregs.idt.limit:
        problem = f"the vector table ends before it (limit {cpu.sregs.idt.limit:#x})"
    elif raw == bytes(4):
        problem = "the vector is 0000:0000"
    handler = None
    if len(raw) == 4:
        handler = (int.from_bytes(raw[2:4], "little") << 4) + int.from_bytes(raw[0:2], "little")
    return Delivery(vector, address, raw, handler, problem)


def descriptor(cpu: Cpu, selector: int) -> tuple[bytes, str]:
    """The eight bytes of the descriptor of `selector`, or none and why."""
    table, base, limit = "GDT", cpu.sregs.gdt.base, cpu.sregs.gdt.limit
    if selector & 4:
        table, base, limit = "LDT", cpu.sregs.ldt.base, cpu.sregs.ldt.limit
        if cpu.sregs.ldt.unusable:
            return b"", f"selector {selector:#x} is in the LDT, and there is none"
    offset = selector & ~7
    if offset + 7 > limit:
        return b"", f"selector {selector:#x} is outside the {table} (limit {limit:#x})"
    raw = cpu.read(base + offset, 8)
    if len(raw) < 8:
        return b"", f"the {table} is not mapped: {_why(cpu, base + offset)}"
    return raw, ""


def _selector_problem(cpu: Cpu, selector: int) -> str:
    if selector & ~3 == 0:
        return "the selector of the entry is null"
    raw, problem = descriptor(cpu, selector)
    if problem:
        return problem
    access, flags = raw[5], raw[6]
    if access & _CODE != _CODE:
        return f"selector {selector:#x} is no code segment (access byte {access:#x})"
    if not access & 0x80:
        return f"the code segment {selector:#x} is not present"
    if cpu.long_mode and not flags & 0x20:
        return f"selector {selector:#x} is no 64-bit code segment"
    if access >> 5 & 3 > cpu.cpl:
        return f"the code segment {selector:#x} has less privilege than the CPU"
    return ""


def _handler_problem(cpu: Cpu, handler: int, selector: int) -> str:
    linear = handler
    if not cpu.long_mode:
        raw, _ = descriptor(cpu, selector)
        linear = handler + int.from_bytes(raw[2:5] + raw[7:8], "little") & 0xFFFF_FFFF
    if not cpu.read(linear, 1):
        return f"the handler at {linear:#x} is not mapped: {_why(cpu, linear)}"
    return ""


def _stack_problem(cpu: Cpu, gate: bytes) -> str:
    """What is wrong with the stack on which the CPU would push: the same one, or one that the TSS names."""
    stack, where = cpu.sp, "the stack"
    task = cpu.sregs.tr
    to_kernel = cpu.cpl > (descriptor_level(cpu, gate))
    if cpu.long_mode and (gate[4] & 7 or to_kernel):
        number = gate[4] & 7
        offset, where = (0x24 + 8 * (number - 1), f"IST{number}") if number else (4, "RSP0 of the TSS")
        if offset + 7 > task.limit:
            return f"{where} is outside the TSS (limit {task.limit:#x})"
        found = cpu.number_at(task.base + offset, 8)
        if found is None:
            return f"the TSS is not mapped: {_why(cpu, task.base + offset)}"
        stack = found
    elif to_kernel:
        found = cpu.number_at(task.base + 4, 4)
        if found is None or task.limit < 11:
            return "the TSS has no stack for privilege level 0"
        stack, where = found, "ESP0 of the TSS"
    word = 8 if cpu.long_mode else 4
    below = stack - word & (1 << 8 * word) - 1
    if not cpu.read(below, 1):
        return f"{where} at {stack:#x} is not mapped: {_why(cpu, below)}"
    return ""


def descriptor_level(cpu: Cpu, gate: bytes) -> int:
    """The privilege level of the code segment that a gate names."""
    raw, _ = descriptor(cpu, int.from_bytes(gate[2:4], "little"))
    return raw[5] >> 5 & 3 if raw else 0


def _why(cpu: Cpu, linear: int) -> str:
    stopped = cpu.walk(linear)
    return stopped.stopped or f"there is no RAM at {stopped.physical:#x}"
