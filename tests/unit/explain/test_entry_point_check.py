"""How a CPU got to where the image has no code."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base.symbol_file import SymbolFile
from kvmbox.explain.debug_info import DebugInfo
from kvmbox.explain.entry_point_check import Arrival, arrival
from kvmbox.explain.paging import ReadPhysical
from kvmbox.explain.stopped_cpu import Cpu
from tests.support.stopped_cpu import Memory, long_mode, protected_mode, real_mode

START, MAIN = 0x3000, 0x3100
STACK = 0x8000
NULL = "a null pointer was called by "
RETURNED = "the entry function start returned, and nothing had called it"
UNKNOWN = "a null pointer was called, or a function returned to 0"
OVERWRITTEN = "probably a return address that was overwritten: it is the word below the stack"
VECTORS = 0x460


def image(entry: int = START) -> DebugInfo:
    """An ELF file, for its entry, and a table of its symbols."""
    header = bytearray(64)
    header[:7] = b"\x7fELF\x02\x01\x01"
    struct.pack_into("<Q", header, 24, entry)
    table = f"{START:016x} T start\n{MAIN:016x} T main\n{MAIN + 0x100:016x} A end\n".encode()
    return DebugInfo([SymbolFile(bytes(header)), SymbolFile(table)])


def stopped(rip: int, *, bits: int = 64, below: dict[int, int], code: dict[int, str]) -> Cpu:
    """A CPU at `rip`, with words on the stack (by the distance from its top, in words), and code."""
    memory = Memory()
    make = long_mode if bits == 64 else protected_mode
    cpu = make(memory, rip=rip, rsp=STACK)
    for page in range(16):
        memory.write(page << 12, b"\0")
    for index, value in below.items():
        memory.write_number(STACK + index * bits // 8, value, bits // 8)
    for address, instruction in code.items():
        memory.write(address, bytes.fromhex(instruction))
    return cpu


def what(found: Arrival | None) -> str | None:
    return None if found is None else found.what


INDIRECT = ["ffd0", "41ffd4", "ff10", "ff5008", "ff14c5 00000000", "ff15 00000000", "ff90 00000000",
            "ff5424 08", "ff9424 80000000"]  # fmt: skip
"""Calls through a register, and through memory in each form of an operand."""


@pytest.mark.parametrize("call", INDIRECT)
@pytest.mark.parametrize("bits", [32, 64])
def test_call_of_a_null_pointer_is_told_by_its_return_address(call: str, bits: int) -> None:
    code = {MAIN + 0x20: call}
    behind = MAIN + 0x20 + len(bytes.fromhex(call))
    cpu = stopped(VECTORS, bits=bits, below={0: behind}, code=code)
    assert what(arrival(cpu, image())) == NULL + "main"


@pytest.mark.parametrize("other", ["ffe0", "fff0", "ffd0d0", "e8", "90"])
def test_word_behind_no_call_through_a_pointer_is_no_return_address_of_one(other: str) -> None:
    behind = MAIN + 0x20 + len(bytes.fromhex(other))
    cpu = stopped(VECTORS, below={0: behind}, code={MAIN + 0x20: other})
    assert what(arrival(cpu, image())) == UNKNOWN


@pytest.mark.parametrize("index", [-4, -1, 1, 4])
def test_vectors_that_pop_and_push_hide_no_call(index: int) -> None:
    cpu = stopped(0x1F, below={index: MAIN + 2}, code={MAIN: "ffd0"})
    assert what(arrival(cpu, image())) == NULL + "main"


def test_call_far_from_the_stack_pointer_is_an_old_one() -> None:
    cpu = stopped(0x1F, below={-5: MAIN + 2}, code={MAIN: "ffd0"})
    assert what(arrival(cpu, image())) == UNKNOWN


def test_call_of_a_null_pointer_where_page_0_is_not_mapped() -> None:
    cpu = stopped(0, below={0: MAIN + 2}, code={MAIN: "ffd0"})
    cpu_memory_entry = cpu.walk(0).levels[-1].address
    assert cpu_memory_entry
    unmapped = Cpu(cpu.regs, cpu.sregs, without(cpu, cpu_memory_entry))
    assert unmapped.walk(0).physical is None
    assert what(arrival(unmapped, image())) == NULL + "main"


def without(cpu: Cpu, entry: int) -> ReadPhysical:
    """Its memory, with this entry of a page table cleared."""

    def read(address: int, size: int) -> bytes:
        found = bytearray(cpu.read_physical(address, size))
        for at in range(max(address, entry), min(address + size, entry + 8)):
            found[at - address] = 0
        return bytes(found)

    return read


@pytest.mark.parametrize("rip", [0x1F, 0x7000_0000_0000])
def test_entry_function_that_returns_is_no_overwritten_address(rip: int) -> None:
    # start: call main, which returned; then start returned, to the word that was on its stack.
    cpu = stopped(rip, below={-1: rip, -3: START + 5}, code={START: "e8fb000000"})
    assert what(arrival(cpu, image())) == RETURNED


def test_other_function_that_returns_astray_is_not_the_entry() -> None:
    rip = 0x7000_0000_0000
    cpu = stopped(rip, below={-1: rip, -3: MAIN + 5, -9: START + 5}, code={START: "e8", MAIN: "e8"})
    assert what(arrival(cpu, image())) == OVERWRITTEN
    leaf = stopped(rip, below={-1: rip}, code={})
    assert what(arrival(leaf, image())) == OVERWRITTEN
    assert what(arrival(leaf, DebugInfo())) == OVERWRITTEN  # no symbols at all


def test_jump_that_leaves_nothing_on_the_stack_has_no_story() -> None:
    assert arrival(stopped(0x7000_0000_0000, below={}, code={}), image()) is None


def test_cpu_in_the_image_or_in_other_memory_or_in_real_mode_has_not_gone_astray() -> None:
    assert arrival(stopped(MAIN, below={-1: MAIN}, code={}), image()) is None
    assert arrival(stopped(0x7000, below={-1: 0x7000}, code={}), image()) is None
    assert arrival(real_mode(Memory(), rip=0x10), image()) is None
