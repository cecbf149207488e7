"""Which exception a CPU could not deliver, as far as its state tells.

A triple fault leaves no record of the exception that began it. What is left is the instruction at RIP, CR2,
the tables and the stack. So this module asks in order: can the instruction be fetched; is it one that raises
an exception by itself; does CR2 hold an address that the instruction cannot have had; is the stack there. The
first yes is the answer, and the answer says "probably" where the state fits another one, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.idt_and_gdt import DOUBLE_FAULT, PAGE_FAULT, Delivery, delivery, descriptor, name_of
from kvmbox.explain.paging import NO_EXECUTE, USER, WRITABLE, Walk, is_canonical
from kvmbox.explain.stopped_cpu import PAGE, RFLAGS_IF, Cpu

MOST_CODE: Final = 15
_DIVIDE_ERROR: Final = 0
_INVALID_OPCODE: Final = 6
_NOT_AVAILABLE: Final = 7
_STACK_FAULT: Final = 12
_PROTECTION: Final = 13
_CR0_EM_TS: Final = (1 << 2, 1 << 3)
_CR0_WP: Final = 1 << 16
_CR4_OSFXSR: Final = 1 << 9
_CR4_SMEP: Final = 1 << 20
_NEAR_STACK: Final = 64
_PREFIXES: Final = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))
_REGISTERS: Final = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *("r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"),
)
_PUSHES: Final = frozenset(
    (*range(0x50, 0x58), 0x06, 0x0E, 0x16, 0x1E, 0x60, 0x68, 0x6A, 0x9A, 0x9C, 0xC8, 0xE8)
)
_FAR: Final = {0x9A: "far call", 0xCA: "far return", 0xCB: "far return", 0xCF: "IRET", 0xEA: "far jump"}
_SSE: Final = frozenset((*range(0x10, 0x18), *range(0x28, 0x30), *range(0x50, 0x77), 0x7E, 0x7F, 0xC2, 0xC6))
"""Second opcode bytes behind 0F, the common ones: moves, arithmetic, conversions."""


class Fault(Value):
    """The exception `vector`, and `what` caused it, as a sentence without its full stop.

    `first` is why the exception could not be delivered, `double` the same of the double fault that follows.
    `walk` is the translation that stopped it, if one did.
    """

    vector: int
    what: str
    first: Delivery
    double: Delivery
    walk: Walk | None = None

    @property
    def name(self) -> str:
        """ "#PF (page fault)" and the like."""
        return name_of(self.vector)


def find(cpu: Cpu) -> Fault | None:
    """What the CPU could not deliver, or None if its state does not tell."""
    code = cpu.read(cpu.pc, MOST_CODE)
    checks: tuple[Callable[[Cpu, bytes], tuple[int, str, Walk | None] | None], ...] = (
        _fetch,
        _by_itself,
        _access,
        _stack,
        _interrupt,
    )
    for check in checks:
        found = check(cpu, code)
        if found is not None:
            vector, what, stopped = found
            return Fault(vector, what, delivery(cpu, vector), delivery(cpu, DOUBLE_FAULT), stopped)
    return None


def _fetch(cpu: Cpu, code: bytes) -> tuple[int, str, Walk | None] | None:
    """The instruction cannot be fetched."""
    del code
    rip, place = cpu.regs.rip, cpu.walk(cpu.pc)
    if cpu.bits == 64 and not is_canonical(rip, cpu.sregs.cr4):
        return _PROTECTION, f"RIP {rip:#x} is not a canonical address", place
    if cpu.bits != 64 and not cpu.is_real and rip > cpu.sregs.cs.limit:
        return _PROTECTION, f"EIP {rip:#x} is beyond the limit of CS ({cpu.sregs.cs.limit:#x})", None
    if place.stopped:
        why = f"RIP {rip:#x} is not mapped: {place.stopped}"
        return PAGE_FAULT, why + _in_tables(cpu, place), place
    if place.rights & NO_EXECUTE:
        return PAGE_FAULT, f"RIP {rip:#x} is on a page that is not executable", place
    if cpu.cpl == 3 and place.levels and not place.rights & USER:
        return PAGE_FAULT, f"RIP {rip:#x} is on a page of the supervisor, and the CPU is in user mode", place
    if cpu.cpl < 3 and cpu.sregs.cr4 & _CR4_SMEP and place.levels and place.rights & USER:
        return PAGE_FAULT, f"RIP {rip:#x} is on a user page, which CR4.SMEP forbids the supervisor", place
    return None


def _in_tables(cpu: Cpu, place: Walk) -> str:
    """Whether the stack has run into the page tables."""
    for level in place.levels:
        if 0 <= level.address + PAGE - cpu.sp < 2 * PAGE:
            return f"; the stack at {cpu.sp:#x} has run into the page tables"
    return ""


def _by_itself(cpu: Cpu, code: bytes) -> tuple[int, str, Walk | None] | None:
    """The instruction raises an exception whatever memory holds."""
    rex, at = _behind_prefixes(cpu, code)
    opcode, following = code[at : at + 1], code[at + 1 : at + 2]
    if not opcode:
        return None
    match opcode[0]:
        case 0xCC:
            return 3, "the guest executed INT3", None
        case 0xF1:
            return 1, "the guest executed INT1", None
        case 0xCD if following:
            return following[0], f"the guest executed INT {following[0]:#x}", None
        case 0xF4 | 0xFA | 0xFB if cpu.cpl > 0 and cpu.cpl > cpu.regs.rflags >> 12 & 3:
            return _PROTECTION, "the guest executed a privileged instruction in user mode", None
        case 0xF6 | 0xF7 if following and following[0] >> 3 & 6 == 6:
            return _divide(cpu, code, at, rex)
        case 0xC2 | 0xC3 if cpu.bits == 64:
            target = cpu.number_at(cpu.sp, 8)
            if target is not None and not is_canonical(target, cpu.sregs.cr4):
                return _PROTECTION, f"the return address {target:#x} is not a canonical address", None
        case 0x8E if following:
            return _segment_load(cpu, following[0], rex)
        case 0x0F if following:
            return _two_bytes(cpu, following[0], code[at + 2 : at + 3])
        case far if far in _FAR and not cpu.is_real and cpu.read(cpu.sp, 1):
            return _far(cpu, far, code[at + 1 :])
    return None


def _behind_prefixes(cpu: Cpu, code: bytes) -> tuple[int, int]:
    """The REX prefix or 0, and where the opcode is."""
    rex, at = 0, 0
    while at < len(code) and code[at] in _PREFIXES:
        at += 1
    if cpu.bits == 64 and at < len(code) and code[at] & 0xF0 == 0x40:
        rex, at = code[at], at + 1
    return rex, at


def _divide(cpu: Cpu, code: bytes, at: int, rex: int) -> tuple[int, str, Walk | None] | None:
    opcode, modrm = code[at], code[at + 1]
    size = 1 if opcode == 0xF6 else 8 if rex & 8 else 2 if (cpu.bits == 16) != (0x66 in code[:at]) else 4
    if modrm < 0xC0:
        address = _operand_address(cpu, code, at + 1, rex)
        value = None if address is None else cpu.number_at(address, size)
    else:
        number = modrm & 7 | (rex & 1) << 3
        high = opcode == 0xF6 and not rex and number >= 4  # AH, CH, DH, BH
        register = getattr(cpu.regs, _REGISTERS[number - 4 if high else number])
        value = register >> (8 if high else 0) & (1 << 8 * size) - 1
    return (_DIVIDE_ERROR, "the guest divided by zero", None) if value == 0 else None


def _segment_load(cpu: Cpu, modrm: int, rex: int) -> tuple[int, str, Walk | None] | None:
    if cpu.is_real or modrm < 0xC0:
        return None
    selector = getattr(cpu.regs, _REGISTERS[modrm & 7 | (rex & 1) << 3]) & 0xFFFF
    name = ("ES", "CS", "SS", "DS", "FS", "GS", "?", "?")[modrm >> 3 & 7]
    if selector & ~3 == 0:
        return (_PROTECTION, f"the guest loaded {name} with a null selector", None) if name == "SS" else None
    raw, problem = descriptor(cpu, selector)
    if problem:
        return _PROTECTION, f"the guest loaded {name}: {problem}", None
    if not raw[5] & 0x80:
        return 11, f"the guest loaded {name} with selector {selector:#x}, which is not present", None
    if not raw[5] & 0x10:
        return _PROTECTION, f"the guest loaded {name} with selector {selector:#x}, a system segment", None
    return None


def _far(cpu: Cpu, opcode: int, operand: bytes) -> tuple[int, str, Walk | None] | None:
    """A transfer to a code segment that is none. Returns take the selector from the stack."""
    if opcode in (0x9A, 0xEA):
        size = 2 if cpu.bits == 16 else 4
        selector = int.from_bytes(operand[size : size + 2], "little")
        if len(operand) < size + 2:
            return None
    else:
        size = 8 if cpu.bits == 64 and opcode == 0xCF else 4
        found = cpu.number_at(cpu.sp + size, 2)
        if found is None:
            return None
        selector = found
    raw, problem = descriptor(cpu, selector)
    if selector & ~3 == 0:
        problem = "the selector is null"
    elif raw and not raw[5] & 8:
        problem = f"selector {selector:#x} is no code segment (access byte {raw[5]:#x})"
    elif raw and not raw[5] & 0x80:
        return 11, f"{_FAR[opcode]}: the code segment {selector:#x} is not present", None
    return (_PROTECTION, f"{_FAR[opcode]}: {problem}", None) if problem else None


def _two_bytes(cpu: Cpu, second: int, third: bytes) -> tuple[int, str, Walk | None] | None:
    if second in (0x0B, 0xB9, 0xFF):
        return _INVALID_OPCODE, f"the guest executed UD{ {0x0B: 2, 0xB9: 1, 0xFF: 0}[second] }", None
    if cpu.cpl > 0 and (second in (0x06, 0x08, 0x09, 0x20, 0x21, 0x22, 0x23, 0x30, 0x32)):
        return _PROTECTION, "the guest executed a privileged instruction in user mode", None
    if second in (0x30, 0x32):
        word = "wrote" if second == 0x30 else "read"
        return _PROTECTION, f"the guest {word} MSR {cpu.regs.rcx & 0xFFFF_FFFF:#x}, which may not exist", None
    if second in _SSE:
        emulated, switched = (bool(cpu.sregs.cr0 & bit) for bit in _CR0_EM_TS)
        if emulated or not cpu.sregs.cr4 & _CR4_OSFXSR:
            register = "CR0.EM is set" if emulated else "CR4.OSFXSR is clear"
            return _INVALID_OPCODE, f"the guest executed an SSE instruction while {register}", None
        if switched:
            return _NOT_AVAILABLE, "the guest executed an SSE instruction while CR0.TS is set", None
    if second == 0x00 and third and third[0] >> 3 & 6 == 2 and third[0] >= 0xC0:
        name = "LTR" if third[0] >> 3 & 1 else "LLDT"
        selector = getattr(cpu.regs, _REGISTERS[third[0] & 7]) & 0xFFFF
        raw, problem = descriptor(cpu, selector)
        if problem or (raw and raw[5] & 0x10):
            problem = problem or f"selector {selector:#x} is no system segment"
            return _PROTECTION, f"{name}: {problem}", None
    return None


def _access(cpu: Cpu, code: bytes) -> tuple[int, str, Walk | None] | None:
    """CR2 is an address that nobody could have accessed."""
    address = cpu.sregs.cr2
    if not cpu.sregs.cr0 >> 31 or cpu.is_real:
        return None
    place = cpu.walk(address)
    # CR2 is 0 from the reset on: 0 says something only if the instruction can have meant it.
    if address == 0 and not (place.stopped and _may_address(cpu, code, 0)):
        return None
    near = 0 <= cpu.sp - address + _NEAR_STACK < PAGE + _NEAR_STACK
    where = f"the guest accessed {address:#x} (CR2)"
    if near:
        ran = cpu.walk(cpu.sp).physical is not None
        where = f"the stack has run into {address:#x}" if ran else f"the stack is at {cpu.sp:#x}"
    if place.stopped:
        why = f"{where}, which is not mapped: {place.stopped}"
        why += " (a null pointer)" if address < PAGE and not near else ""
        return PAGE_FAULT, why + _in_tables(cpu, place), place
    if cpu.cpl == 3 and not place.rights & USER:
        return PAGE_FAULT, f"{where}, a page of the supervisor, in user mode", place
    if not place.rights & WRITABLE and (cpu.cpl == 3 or cpu.sregs.cr0 & _CR0_WP):
        return PAGE_FAULT, f"{where}, probably for writing, and the page is read-only", place
    return None


def _may_address(cpu: Cpu, code: bytes, address: int) -> bool:
    """Whether the instruction has a memory operand at `address`."""
    rex, at = _behind_prefixes(cpu, code)
    if code[at : at + 1] in (b"\xa4", b"\xa5", b"\xaa", b"\xab"):
        return bool(cpu.regs.rdi == address)
    return _operand_address(cpu, code, at + (2 if code[at : at + 1] == b"\x0f" else 1), rex) == address


def _operand_address(cpu: Cpu, code: bytes, at: int, rex: int) -> int | None:
    """The address of the memory operand whose ModRM byte is at `at`, in a segment that begins at 0.

    None if it is a register, or the CPU is in 16-bit code.
    """
    modrm = code[at : at + 1]
    if not modrm or modrm[0] >> 6 == 3 or cpu.bits == 16:
        return None
    mode, base = modrm[0] >> 6, modrm[0] & 7
    at += 1
    value = 0
    if base == 4:
        sib = code[at] if at < len(code) else 0
        at += 1
        base, index = sib & 7, sib >> 3 & 7 | (rex & 2) << 2
        value = getattr(cpu.regs, _REGISTERS[index]) << (sib >> 6) if index != 4 else 0
    elif mode == 0 and base == 5 and cpu.bits == 64:
        value = cpu.regs.rip + at + 4
    length = 4 if mode == 2 or (mode == 0 and base == 5) else mode
    if mode or base != 5:
        value += getattr(cpu.regs, _REGISTERS[base | (rex & 1) << 3])
    value += int.from_bytes(code[at : at + length], "little", signed=True)
    return int(value) & (1 << cpu.bits) - 1


def _stack(cpu: Cpu, code: bytes) -> tuple[int, str, Walk | None] | None:
    """The instruction pushes, and there is no stack to push on."""
    pushes = bool(code) and (
        code[0] in _PUSHES or (code[0] == 0xFF and len(code) > 1 and code[1] >> 3 & 7 in (2, 3, 6))
    )
    if not pushes or cpu.is_real:
        return None
    mask = (1 << 64) - 1 if cpu.bits == 64 else 0xFFFF_FFFF
    below = cpu.sp - (8 if cpu.bits == 64 else 4) & mask
    place = cpu.walk(below)
    if cpu.bits == 64 and not is_canonical(below, cpu.sregs.cr4):
        return _STACK_FAULT, f"the stack pointer {cpu.regs.rsp:#x} is not a canonical address", place
    if place.stopped:
        return PAGE_FAULT, f"the stack at {cpu.sp:#x} is not mapped: {place.stopped}", place
    if cpu.sregs.cr0 >> 31 and not place.rights & WRITABLE:
        return PAGE_FAULT, f"the stack at {cpu.sp:#x} is read-only", place
    return None


def _interrupt(cpu: Cpu, code: bytes) -> tuple[int, str, Walk | None] | None:
    """Nothing is wrong with the instruction, interrupts are on, and no interrupt could be delivered."""
    del code
    if not cpu.regs.rflags & RFLAGS_IF:
        return None
    for vector in (0x20, 0x08, 0x30):  # where IRQ 0 usually is
        if delivery(cpu, vector).problem:
            return vector, "probably an interrupt: interrupts are on, and nothing else is wrong", None
    return None
