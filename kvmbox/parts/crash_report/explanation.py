"""The explanation of one stopped CPU, as data."""

from __future__ import annotations

from typing import Any, Final

from kvmbox.base.value_classes import Value
from kvmbox.explain import undelivered_exception
from kvmbox.explain.debug_info import DebugInfo
from kvmbox.explain.disassembly import Instruction, disassemble
from kvmbox.explain.entry_point_check import Arrival, arrival
from kvmbox.explain.paging import CR0_PG, Walk
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.explain.symbols import LONGEST_GUESS
from kvmbox.explain.undelivered_exception import Fault
from kvmbox.parts.crash_report.backtrace import backtrace

STACK_WORDS: Final = 16
CODE_BYTES: Final = 16
AROUND: Final = (4, 4)
"""How many instructions are shown before RIP and from it on."""


class FrameInWords(Value):
    """A frame of the backtrace: the `address` of the instruction or the return address, name, line, and the
    text of that line, as far as they are known.
    """

    address: int
    name: str
    line: str
    source: str = ""


class StackWord(Value):
    """A word on the stack, and the name of what it points to, if that has one."""

    address: int
    value: int
    name: str


class Explanation(Value):
    """What is known of a CPU. `where` is RIP in words, empty without symbols, and `source` the text of its
    source line, empty if that is not known.

    `code` has the bytes at RIP, None for each that is not there. `instructions` are those around RIP, none
    without a disassembler. `fault` is the exception that could not be delivered, if the guest ended by that.
    `walks` are the translations of RIP, RSP and CR2 that fail. `arrival` is how the CPU got to an address
    where the image has no code.
    """

    number: int
    bits: int
    pc: int
    where: str
    source: str
    code: tuple[int | None, ...]
    instructions: tuple[Instruction, ...]
    frames: tuple[FrameInWords, ...]
    stack: tuple[StackWord, ...]
    fault: Fault | None
    walks: tuple[tuple[str, Walk], ...]
    arrival: Arrival | None

    def as_json(self) -> dict[str, Any]:
        """The explanation as values of JSON; numbers that are addresses are hexadecimal strings."""
        return {
            "cpu": self.number,
            "pc": hex(self.pc),
            "where": self.where,
            "source": self.source,
            "instructions": [
                {"address": hex(one.address), "code": one.code.hex(" "), "text": one.text}
                for one in self.instructions
            ],
            "backtrace": [one.as_dict() | {"address": hex(one.address)} for one in self.frames],
            "stack": [
                {"address": hex(one.address), "value": hex(one.value), "name": one.name} for one in self.stack
            ],
            "arrival": "" if self.arrival is None else self.arrival.what,
            "fault": None if self.fault is None else _fault_as_json(self.fault),
            "walks": {
                name: {"address": hex(walk.linear), "levels": [str(one) for one in walk.levels],
                       "stopped": walk.stopped}
                for name, walk in self.walks
            },
        }  # fmt: skip


def _fault_as_json(fault: Fault) -> dict[str, Any]:
    return {
        "vector": fault.vector,
        "name": fault.name,
        "what": fault.what,
        "not_delivered": fault.first.problem,
        "double_fault_not_delivered": fault.double.problem,
    }


def explain(cpu: Cpu, debug_info: DebugInfo, *, crashed: bool) -> Explanation:
    """Explain `cpu`. `crashed` says that it has ended by a triple fault."""
    pc = cpu.pc
    code = cpu.read(pc, CODE_BYTES)
    fault = undelivered_exception.find(cpu) if crashed else None
    return Explanation(
        cpu.number,
        cpu.bits,
        pc,
        debug_info.named(pc),
        debug_info.source(pc),
        (*code, *[None] * (CODE_BYTES - len(code))),
        tuple(_instructions(cpu, debug_info)),
        tuple(_frames(cpu, debug_info)),
        tuple(_stack(cpu, debug_info)),
        fault,
        tuple(_walks(cpu, fault)),
        arrival(cpu, debug_info),
    )


def _instructions(cpu: Cpu, debug_info: DebugInfo) -> list[Instruction]:
    """Those around RIP. Before RIP only where a symbol tells at which byte instructions begin."""
    before, behind = AROUND
    place = debug_info.place(cpu.pc)
    start = cpu.pc - (place.offset if place is not None and place.offset < min(LONGEST_GUESS, 4096) else 0)
    found = disassemble(cpu.read(start, cpu.pc - start + behind * 15), start, cpu.bits, 4096)
    at = next((index for index, one in enumerate(found) if one.address == cpu.pc), None)
    if at is None:  # RIP is not where an instruction begins
        return disassemble(cpu.read(cpu.pc, behind * 15), cpu.pc, cpu.bits, behind)
    return found[max(0, at - before) : at + behind]


def _frames(cpu: Cpu, debug_info: DebugInfo) -> list[FrameInWords]:
    found = []
    for caller in backtrace(cpu, debug_info.place, debug_info.frames(cpu.pc)):
        # The call is the instruction before the return address, which may belong to the next line.
        at = caller.pc - caller.is_return
        place, line = debug_info.place(at), debug_info.line(at)
        name = ""
        if place is not None:
            name = str(place.behind(caller.is_return))
        text = "" if line is None else str(line)
        found.append(FrameInWords(caller.pc, name, text, debug_info.source(at)))
    return found


def _stack(cpu: Cpu, debug_info: DebugInfo) -> list[StackWord]:
    size = 2 if cpu.is_real else cpu.bits // 8
    raw = cpu.read(cpu.sp, STACK_WORDS * size)
    found = []
    for at in range(0, len(raw) - size + 1, size):
        value = int.from_bytes(raw[at : at + size], "little")
        place = debug_info.place(value) if not cpu.is_real else None
        found.append(StackWord(cpu.sp + at, value, "" if place is None else str(place)))
    return found


def _walks(cpu: Cpu, fault: Fault | None) -> list[tuple[str, Walk]]:
    if not cpu.sregs.cr0 & CR0_PG:
        return []
    found = []
    for name, address in (("RIP", cpu.pc), ("RSP", cpu.sp), ("CR2", cpu.sregs.cr2)):
        walk = cpu.walk(address)
        # CR2 is 0 from the reset on: 0 says something only if it is the cause.
        means_nothing = address == 0 and name == "CR2" and (fault is None or fault.walk != walk)
        if walk.stopped and not means_nothing:
            found.append((name, walk))
    return found
