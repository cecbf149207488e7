"""Which exception a triple fault began with, and why it could not be delivered."""

from __future__ import annotations

import pytest

from kvmbox.explain.idt_and_gdt import delivery
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.explain.undelivered_exception import find
from tests.support.stopped_cpu import (
    CODE_32,
    CODE_64,
    DATA,
    Memory,
    gate,
    long_mode,
    protected_mode,
    real_mode,
    set_gdt,
    set_idt,
)

HANDLER = 0x3000


def ready(code: str, **registers: int) -> tuple[Cpu, Memory]:
    """A CPU in long mode at `code`, with a GDT and an IDT that are right."""
    memory = Memory()
    cpu = long_mode(memory, **registers)
    memory.write(0x7C00, bytes.fromhex(code))
    set_gdt(cpu, memory, CODE_64, DATA, CODE_32)
    set_idt(cpu, memory, gate(HANDLER, 8))
    return cpu, memory


# --- The exception ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "registers", "vector", "what"),
    [
        ("0f0b", {}, 6, "the guest executed UD2"),
        ("0fb9c0", {}, 6, "the guest executed UD1"),
        ("cc", {}, 3, "INT3"),
        ("cd80", {}, 0x80, "INT 0x80"),
        ("f7f1", {"rcx": 0}, 0, "divided by zero"),
        ("48f7f9", {"rcx": 0}, 0, "divided by zero"),
        ("f7f1", {"rcx": 1 << 32}, 0, "divided by zero"),  # ECX is 0
        ("41f7f0", {"r8": 0, "rax": 7}, 0, "divided by zero"),
        ("f6f4", {"rax": 0x00FF}, 0, "divided by zero"),  # AH is 0
        ("f77de4", {"rbp": 0x701C}, 0, "divided by zero"),  # idiv dword ptr [rbp - 0x1c]
        ("48f73d00f4ffff", {}, 0, "divided by zero"),  # idiv qword ptr [rip - 0xc00]: 0x7007
        ("f67c8b04", {"rbx": 0x6FF4, "rcx": 2}, 0, "divided by zero"),  # idiv byte ptr [rbx + 4 * rcx + 4]
        ("41f73424", {"r12": 0x7000}, 0, "divided by zero"),  # div dword ptr [r12]
        ("66f73d00f4ffff", {}, 0, "divided by zero"),  # idiv word ptr [rip - 0xc00]
        ("8ed8", {"rax": 0x1230}, 13, "loaded DS: selector 0x1230 is outside the GDT"),
        ("8ed0", {"rax": 0}, 13, "loaded SS with a null selector"),
        ("0f10c0", {}, 6, "an SSE instruction while CR4.OSFXSR is clear"),
        ("0f10c0", {"cr4": 1 << 5 | 1 << 9, "cr0": 0x8000_0009}, 7, "while CR0.TS is set"),
        ("0f30", {"rcx": 0x1234}, 13, "wrote MSR 0x1234"),
        ("0f00d8", {"rax": 0x30}, 13, "LTR: selector 0x30 is outside the GDT"),
        ("0f00d8", {"rax": 0x10}, 13, "LTR: selector 0x10 is no system segment"),
    ],
)
def test_instruction_that_raises_an_exception(
    code: str, registers: dict[str, int], vector: int, what: str
) -> None:
    cpu, _ = ready(code, **registers)
    fault = find(cpu)
    assert fault is not None
    assert fault.vector == vector
    assert what in fault.what


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        ("f7f1", {"rcx": 1}),
        ("f77de4", {"rbp": 0x7C1C}),  # its own code is the divisor
        ("f6bb", {"rbx": 0x7C00}),  # the rest of the instruction is 0
        ("8ed8", {"rax": 0x10}),
        ("8ed8", {"rax": 0}),
        ("90", {}),
        ("8b00", {"rax": 0x7000}),
    ],
)
def test_instruction_that_does_nothing_wrong(code: str, registers: dict[str, int]) -> None:
    cpu, _ = ready(code, **registers)
    assert find(cpu) is None


def test_jump_to_what_is_not_mapped() -> None:
    cpu, _ = ready("90")
    cpu.regs.rip = 0x12_3456_7000
    fault = find(cpu)
    assert fault is not None
    assert (fault.vector, fault.what) == (14, "RIP 0x1234567000 is not mapped: PDPTE is not present")


def test_return_to_what_is_no_address() -> None:
    cpu, memory = ready("c3")
    memory.write_number(0x8000, 0x4141_4141_4141_4141)
    fault = find(cpu)
    assert fault is not None
    assert (fault.vector, fault.what) == (
        13,
        "the return address 0x4141414141414141 is not a canonical address",
    )


def test_null_pointer_that_is_read() -> None:
    cpu, memory = ready("8b00", rax=0)
    entry = cpu.walk(0).levels[-1]
    memory.write_number(entry.address, 0)
    read = find(cpu)
    assert read is not None
    assert "accessed 0x0 (CR2), which is not mapped: PTE is not present (a null pointer)" in read.what


def test_cr2_of_zero_says_nothing_where_the_instruction_has_another_address() -> None:
    cpu, memory = ready("8b00", rax=0x7000)
    memory.write_number(cpu.walk(0).levels[-1].address, 0)
    assert find(cpu) is None


def test_stack_that_grew_into_an_unmapped_page() -> None:
    cpu, memory = ready("e800000000", rsp=0x8000, cr2=0x7FF8)
    memory.write(0x9C00, bytes.fromhex("e800000000"))
    cpu.regs.rip = 0x9C00
    memory.write_number(cpu.walk(0x7000).levels[-1].address, 0)
    fault = find(cpu)
    assert fault is not None
    assert "the stack has run into 0x7ff8, which is not mapped" in fault.what
    assert fault.first.problem == "the stack at 0x8000 is not mapped: PTE is not present"


def test_stack_in_the_page_tables() -> None:
    cpu, memory = ready("90")
    stopped = cpu.walk(0x7C00)
    memory.write_number(stopped.levels[2].address, 0x1234)  # what a push has left there
    cpu.regs.rsp = stopped.levels[2].address
    fault = find(cpu)
    assert fault is not None
    assert fault.what.endswith("has run into the page tables")


@pytest.mark.parametrize(
    ("flags", "efer", "cpl", "cr4", "what"),
    [
        (7 | 1 << 63, 1 << 11, 0, 0, "is on a page that is not executable"),
        (3, 0, 3, 0, "is on a page of the supervisor, and the CPU is in user mode"),
        (7, 0, 0, 1 << 20, "is on a user page, which CR4.SMEP forbids"),
    ],
)
def test_page_that_must_not_be_executed(flags: int, efer: int, cpl: int, cr4: int, what: str) -> None:
    cpu, memory = ready("90")
    memory.map(cpu.sregs.cr3, 0x7000, 0x7000, flags, shifts=(39, 30, 21, 12))
    cpu.sregs.efer |= efer
    cpu.sregs.cr4 |= cr4
    cpu.sregs.ss.dpl = cpl
    fault = find(cpu)
    assert fault is not None
    assert what in fault.what


def test_write_to_a_read_only_page() -> None:
    cpu, memory = ready("c7002a000000", rax=0x6000, cr2=0x6000, cr0=0x8001_0001)
    memory.map(cpu.sregs.cr3, 0x6000, 0x6000, 5, shifts=(39, 30, 21, 12))
    fault = find(cpu)
    assert fault is not None
    assert fault.what == "the guest accessed 0x6000 (CR2), probably for writing, and the page is read-only"


def test_privileged_instruction_in_user_mode() -> None:
    cpu, _ = ready("f4")
    cpu.sregs.ss.dpl = 3
    fault = find(cpu)
    assert fault is not None
    assert fault.what == "the guest executed a privileged instruction in user mode"


def test_far_jump_to_a_selector_that_is_none() -> None:
    memory = Memory()
    cpu = protected_mode(memory)
    memory.write(0x7C00, bytes.fromhex("ea0000100038120000"))
    memory.write(0x8000, bytes(8))
    set_gdt(cpu, memory, CODE_32)
    fault = find(cpu)
    assert fault is not None
    assert fault.what == "far jump: selector 0x1238 is outside the GDT (limit 0xf)"


def test_interrupt_where_nothing_else_is_wrong() -> None:
    cpu, memory = ready("90", rflags=0x202)
    set_idt(cpu, memory, gate(HANDLER, 8), count=32)
    fault = find(cpu)
    assert fault is not None
    assert fault.vector == 0x20
    assert "probably an interrupt" in fault.what


# --- Why it is not delivered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (bytes(16), "the entry is empty"),
        (gate(HANDLER, 8, 0x0E), "the entry is not present"),
        (gate(HANDLER, 8, 0x8C), "the entry is no gate (type 0xc)"),
        (gate(HANDLER, 8, 0x9E), "the entry is no gate (type 0x1e)"),
        (gate(HANDLER, 8, 0x86), "the entry is a 16-bit interrupt gate, which long mode does not know"),
        (gate(HANDLER, 0), "the selector of the entry is null"),
        (gate(HANDLER, 0x1230), "selector 0x1230 is outside the GDT (limit 0x1f)"),
        (gate(HANDLER, 0x0C), "selector 0xc is in the LDT, and there is none"),
        (gate(HANDLER, 0x10), "selector 0x10 is no code segment (access byte 0x92)"),
        (gate(HANDLER, 0x18), "selector 0x18 is no 64-bit code segment"),
        (gate(0x7000_0000_0000, 8), "the handler at 0x700000000000 is not mapped: PML4E is not present"),
        (gate(HANDLER, 8, ist=1), "IST1 is outside the TSS (limit 0x0)"),
        (gate(HANDLER, 8), ""),
    ],
)
def test_entry_of_the_idt(entry: bytes, problem: str) -> None:
    cpu, memory = ready("0f0b")
    set_idt(cpu, memory, entry)
    assert delivery(cpu, 6).problem == problem


def test_idt_that_ends_before_the_entry() -> None:
    cpu, memory = ready("0f0b")
    set_idt(cpu, memory, gate(HANDLER, 8), count=6)
    assert delivery(cpu, 6).problem == "the IDT ends behind entry 5 (limit 0x5f)"
    assert delivery(cpu, 5).problem == ""
    cpu.sregs.idt.limit = 0
    assert delivery(cpu, 6).problem == "the IDT has no entry at all (limit 0x0)"


def test_idt_that_is_not_mapped() -> None:
    cpu, _ = ready("0f0b")
    cpu.sregs.idt.base = 0x5000_0000_0000
    assert delivery(cpu, 6).problem == "the IDT is not mapped: PML4E is not present"


def test_stack_of_the_tss() -> None:
    cpu, memory = ready("0f0b")
    set_idt(cpu, memory, gate(HANDLER, 8, ist=1))
    cpu.sregs.tr.base, cpu.sregs.tr.limit = 0x4000, 0x67
    memory.write_number(0x4000 + 0x24, 0x9000)
    assert delivery(cpu, 6).problem == ""
    memory.write_number(0x4000 + 0x24, 0x6000_0000_0000)
    assert delivery(cpu, 6).problem == "IST1 at 0x600000000000 is not mapped: PML4E is not present"
    cpu.sregs.ss.dpl = 3
    set_idt(cpu, memory, gate(HANDLER, 8))
    assert "RSP0 of the TSS at 0x0" in delivery(cpu, 6).problem


def test_protected_mode_has_entries_of_eight_bytes() -> None:
    memory = Memory()
    cpu = protected_mode(memory)
    memory.write(0x7000, bytes(0x2000))
    memory.write(HANDLER, b"\xf4")
    set_gdt(cpu, memory, CODE_32)
    set_idt(cpu, memory, gate(HANDLER, 8, wide=False))
    found = delivery(cpu, 13)
    assert (found.problem, found.handler, found.address) == ("", HANDLER, 0x2000 + 8 * 13)


def test_real_mode_has_vectors() -> None:
    memory = Memory()
    cpu = real_mode(memory)
    cpu.sregs.idt.limit = 0x3FF
    memory.write(0, bytes(0x400))
    assert delivery(cpu, 0).problem == "the vector is 0000:0000"
    memory.write(4 * 5, bytes.fromhex("34120010"))
    found = delivery(cpu, 5)
    assert (found.problem, found.handler) == ("", 0x11234)
