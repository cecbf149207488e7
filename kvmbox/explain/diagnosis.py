"""Hints about the end of a guest, when the state of the guest says more than the exit. Pure.

There are two findings. If KVM's emulator refused an instruction, the hint names the instruction, and says
whether the backend or the guest is at fault: `family` knows what KVM's emulator
(arch/x86/kvm/emulate.c) lacks, wholly or in some mode. If a guest called a BIOS service, the hint says that
there is no BIOS. In real mode the vector table is empty at first. So `int` jumps to 0000:0000, and continues
through memory that is zero, which is the instruction `add [bx+si], al`.

A BIOS call leaves flags, CS and IP on the stack (Intel SDM volume 2, INT n, real-address mode). Three
conditions show a BIOS call: the two bytes before the return address are `int n`; the flags have the one and
the zeros that every processor pushes; and vector n is 0000:0000. A vector that the guest has set is never
reported as a BIOS call.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.kvm.exits import InternalErrorExit
from kvmbox.kvm.uapi import KVM_INTERNAL_ERROR_EMULATION, kvm_regs, kvm_sregs

_CR0_PE: Final = 1 << 0
_EFER_LMA: Final = 1 << 10
_INT_N: Final = 0xCD
_BIOS_SERVICES: Final = range(0x10, 0x1D)  # video, disk, serial port, keyboard, clock, …
_FLAGS_FIXED: Final = 0x802A  # bits 1, 3, 5 and 15 of FLAGS: 1, 0, 0, 0 on every processor since the 286
_FLAGS_ALWAYS: Final = 0x0002

# In words around SP: at it while the guest is where the vector led, below it once it has pushed or popped.
_STACK_WORDS: Final = (*range(17), *range(-1, -17, -1))

_AVX_512: Final = "an AVX-512 instruction"
_XOP: Final = "an XOP instruction"
_UNCOMMON: Final = (_AVX_512, _XOP)
"""Many processors lack these themselves."""

_PREFIXES: Final = frozenset(b"\x26\x2e\x36\x3e\x64\x65\x66\x67\xf0\xf2\xf3")
_VECTOR: Final = {"c4": "an AVX or BMI instruction", "c5": "an AVX instruction", "62": _AVX_512}
_SSE4: Final = "an SSSE3, SSE4, AES or SHA instruction"
_FAMILIES: Final = (
    ("cc", "int3"),
    ("cd", "int"),
    ("ce", "into"),
    ("cf", "iret"),
    ("9b", "fwait"),
    ("d[89a-f].", "an x87 instruction"),
    ("8f([13579bdf]|.[89a-f])", _XOP),
    ("f3 0fb8", "popcnt"),
    ("f3 0fbc", "tzcnt"),
    ("f3 0fbd", "lzcnt"),
    ("0f01ca", "clac"),
    ("0f01cb", "stac"),
    ("0f01d0", "xgetbv"),
    ("0f01d1", "xsetbv"),
    ("0f01(c[189]|d[89]|e[ef]|f[89abc])", "an instruction such as monitor, vmcall, swapgs or rdtscp"),
    ("f3 0f1e[cd]", "rdssp"),
    ("66 0fae[37b][0-7]", "clwb"),
    ("f3 0fae[cdef]", "an instruction such as rdfsbase or umonitor"),
    ("0fae[0-9ab]", "an instruction such as fxsave, xsave or clflush"),
    ("0fc7f[0-7]", "rdrand"),
    ("f3 0fc7f[89a-f]", "rdpid"),
    ("0fc7f[89a-f]", "rdseed"),
    ("0fc7([048159][89a-f]|[26a])", "an instruction such as cmpxchg8b, cmpxchg16b or xsaves"),
    ("f2 0f38f[01]", "crc32"),
    ("0f38f[01]", "movbe"),
    ("0f38f6", "adcx or adox"),
    ("66 0f3882", "invpcid"),
    ("0f38[0-9a-e].", _SSE4),
    ("0f3a.", _SSE4),
    ("0f(1[0-7]|2[89a-f]|5|6|7|c[23456]|[de].|f[0-9a-e])", "an MMX or SSE instruction"),
)
"""Opcodes as hex digits, by the opcode maps of the Intel SDM, volume 2, appendix A: after the prefix that
selects among their meanings, where that matters. The first that matches counts.
"""

_NOT_EMULATED: Final = (
    "the processor runs the guest by itself, and KVM emulates only what reaches for memory that is not RAM:"
    " use plain loads and stores for devices, and look where the operand points"
)
_NO_NAME: Final = (
    "this host's KVM backend (PVM) emulates kernel-mode code, without every instruction of the processor; if"
    " the bytes are none at all, the guest ran into data"
)
_NOT_COMMON: Final = (
    "this host's KVM backend (PVM) emulates kernel-mode code; its processor may lack the instruction, too"
)

_INSTEAD: Final = {
    0x10: "print to COM1 (port 0x3f8) or to the debug console (port 0xe9) instead",
    0x13: "there is no disk either; put all that the guest needs into its image",
    0x14: "program COM1 (port 0x3f8) instead",
    0x15: "a Multiboot or ELF kernel is told the memory map",
    0x16: "read from COM1 (port 0x3f8) instead",
    0x1A: "read the RTC (ports 0x70 and 0x71) instead",
}

ReadByte = Callable[[int], int | None]
"""The byte at a guest-physical address, None where there is no RAM."""

Disassemble = Callable[[bytes, int], str | None]
"""The name of the first instruction in code of 16, 32 or 64 bits; None without a disassembler."""


class Diagnosis(Value):
    """What to tell: the error in a line, and a hint."""

    reason: str
    hint: str


def code_bits(sregs: kvm_sregs) -> int:
    """The size of code in the current code segment: 16, 32 or 64."""
    if sregs.cr0 & _CR0_PE and sregs.efer & _EFER_LMA and sregs.cs.l:
        return 64
    return 32 if sregs.cs.db else 16


def refused_instruction(
    found: InternalErrorExit,
    sregs: kvm_sregs,
    at_rip: bytes,
    *,
    pvm: bool,
    astray: bool = False,
    disassemble: Disassemble = lambda _code, _bits: None,
) -> Diagnosis | None:
    """What an emulation failure means; None for any other internal error.

    `at_rip` are the bytes at RIP, for a KVM that does not tell them. With `pvm`, kernel-mode code is emulated
    on this host (`kvm.system.is_pvm`); otherwise the processor runs it, and KVM emulates single instructions.
    `astray` says that the guest is known not to execute its own code.
    """
    if found.suberror != KVM_INTERNAL_ERROR_EMULATION:
        return None
    code = found.instruction or at_rip
    bits = code_bits(sregs)
    name, mnemonic = family(code, bits), disassemble(code, bits)
    shown = f"code bytes {code.hex(' ')}" if code else "code bytes unknown"
    refused = mnemonic or name or "the instruction"
    what = f"KVM internal error {found.suberror}: KVM's emulator does not know {refused}"
    if pvm and name is not None and name not in _UNCOMMON and not astray:
        return Diagnosis(
            f"{what}: a limit of this host's KVM backend, not of the guest; {shown}", _way_around(name)
        )
    if not pvm:
        hint = _NOT_EMULATED
    elif name is None or astray:
        hint = _NO_NAME
    else:
        hint = _NOT_COMMON
    return Diagnosis(f"{what}, {shown}", hint)


def family(code: bytes, bits: int) -> str | None:
    """What the instruction that `code` begins with is called or belongs to, in a code segment of `bits` (16,
    32 or 64); None for one that KVM's emulator is not known to lack. The bytes may be cut short.
    """
    prefix, start = "", 0
    while start < len(code) and code[start] in _PREFIXES:
        # F2 and F3 win over 66, and the last one of them counts.
        if code[start] in (0xF2, 0xF3) or (code[start] == 0x66 and not prefix):
            prefix = f"{code[start]:02x} "
        start += 1
    if bits == 64 and code[start : start + 1].hex().startswith("4"):  # REX
        start += 1
    digits = code[start:].hex()
    # With a memory operand, VEX and EVEX are other instructions (les, lds, bound) in 16- and 32-bit code.
    if digits[:2] in _VECTOR and digits[2:3] >= ("0" if bits == 64 else "c"):
        return _VECTOR[digits[:2]]
    for pattern, name in _FAMILIES:
        if re.match(pattern, digits) or re.match(pattern, prefix + digits):
            return name
    return None


def _way_around(name: str) -> str:
    elsewhere = "run it on a host with VT-x or AMD-V ('kvmbox doctor' tells)"
    if name in ("iret", "int", "int3", "into"):
        return f"{elsewhere}, or handle interrupts in real mode or 64-bit mode, which work here"
    return f"{elsewhere}, or build it with -mno-sse -mno-80387 -march=x86-64, and without {name} in assembly"


def bios_call(regs: kvm_regs, sregs: kvm_sregs, read: ReadByte) -> str | None:
    """The sentence for a guest that called a BIOS, None for any other."""
    if sregs.cr0 & _CR0_PE:
        return _bios_call_in_protected_mode(regs, sregs, read)
    for index in _STACK_WORDS:
        places = [sregs.ss.base + (regs.rsp + 2 * (index + word) & 0xFFFF) for word in range(3)]
        ip, cs, flags = (_word(read, place) for place in places)
        if ip is None or cs is None or flags is None or flags & _FLAGS_FIXED != _FLAGS_ALWAYS:
            continue
        start = ip - 2 & 0xFFFF
        if read((cs << 4) + start) != _INT_N:
            continue
        vector = read((cs << 4) + (start + 1 & 0xFFFF))
        if vector is None:
            continue
        entry = sregs.idt.base + 4 * vector
        if _word(read, entry) == 0 and _word(read, entry + 2) == 0:
            called = (
                f"the guest executed int {vector:#x} at {cs:04x}:{start:04x}, and its vector is 0000:0000"
            )
            return f"{called}: there is no BIOS here{_instead(vector)}"
    return None


def _bios_call_in_protected_mode(regs: kvm_regs, sregs: kvm_sregs, read: ReadByte) -> str | None:
    # Without paging, or with the boot page tables, linear is physical; elsewhere this finds nothing.
    address = regs.rip if code_bits(sregs) == 64 else sregs.cs.base + regs.rip
    vector = read(address + 1)
    if read(address) != _INT_N or vector is None or vector not in _BIOS_SERVICES:
        return None
    size = 16 if sregs.efer & _EFER_LMA else 8
    if sregs.idt.limit >= size * vector + size - 1:
        return None
    return (
        f"the guest executed int {vector:#x} at {regs.rip:#x} without an interrupt table: there is no BIOS"
        f" here, and in protected mode there never is{_instead(vector)}"
    )


def _instead(vector: int) -> str:
    return f"; {_INSTEAD[vector]}" if vector in _INSTEAD else ""


def _word(read: ReadByte, address: int) -> int | None:
    low, high = read(address), read(address + 1)
    return None if low is None or high is None else low | high << 8
