"""Who called whom: a chain of return addresses. Bounded, and no address is followed twice.

For each frame the first of these that gives a plausible caller counts: the call frame information of the
image; the word at the stack pointer, in a function that has not made its frame yet; the frame pointer. A
caller is plausible if its frame is above this one, and its return address is in a function of the image, or,
without symbols, in memory that can be executed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.explain.paging import NO_EXECUTE
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.explain.symbols import Place
from kvmbox.explain.unwind import Frame, Frames

MOST_FRAMES: Final = 32
_UNTIL_FRAME: Final = {0: 0, 1: 1}
"""Offsets within a function at which its caller's address is so many words above the stack pointer: before
the frame pointer is pushed, and behind that (a push of RBP has one byte).
"""
_ENDBR: Final = (b"\xf3\x0f\x1e\xfa", b"\xf3\x0f\x1e\xfb")


class Caller(Value):
    """A frame: the address of the call, or of the instruction at the innermost one."""

    pc: int
    is_return: bool


def backtrace(cpu: Cpu, place_of: Callable[[int], Place | None], frames: Frames | None) -> list[Caller]:
    """The chain of calls, innermost first."""
    bits = cpu.bits
    if cpu.is_real:
        return [Caller(cpu.pc, False)]
    mask = (1 << bits) - 1 if bits != 16 else 0xFFFF_FFFF
    names = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r12", "r13", "r14", "r15")
    registers = {name: int(getattr(cpu.regs, name)) & mask for name in names}
    pc = cpu.regs.rip & mask
    found = [Caller(pc, False)]
    seen = {(pc, registers["rsp"])}
    while len(found) < MOST_FRAMES:
        frame = None
        # A return address may be the first byte of the next function: the call is before it.
        inside = pc - (len(found) > 1)
        if frames is not None:
            frame = frames.caller(inside, registers, bits, cpu.number_at)
            if frame is not None and not _plausible(cpu, frame, registers, place_of):
                frame = None
        for guess in (_before_frame, _frame_pointer):
            if frame is None:
                frame = guess(cpu, pc, registers, place_of)
                if frame is not None and not _plausible(cpu, frame, registers, place_of):
                    frame = None
        if frame is None or (frame.pc, frame.registers["rsp"]) in seen:
            break
        seen.add((frame.pc, frame.registers["rsp"]))
        found.append(Caller(frame.pc, True))
        pc, registers = frame.pc, dict(frame.registers)
    return found


def _plausible(
    cpu: Cpu, frame: Frame, registers: dict[str, int], place_of: Callable[[int], Place | None]
) -> bool:
    if frame.registers.get("rsp", 0) <= registers["rsp"] or frame.pc == 0:
        return False
    if place_of(frame.pc - 1) is not None:
        return True
    place = cpu.walk(frame.pc)
    return place_of(cpu.pc) is None and place.physical is not None and not place.rights & NO_EXECUTE


def _before_frame(
    cpu: Cpu, pc: int, registers: dict[str, int], place_of: Callable[[int], Place | None]
) -> Frame | None:
    place = place_of(pc)
    word = cpu.bits // 8
    if place is None:  # perhaps a call that led nowhere: its return address is on the stack
        target = cpu.number_at(registers["rsp"], word)
        if target is None or place_of(target - 1) is None:
            return None
        return Frame(target, {**registers, "rsp": registers["rsp"] + word})
    offset = place.offset
    if cpu.read(pc - offset, 4) in _ENDBR and offset >= 4:
        offset -= 4
    if offset not in _UNTIL_FRAME:
        return None
    at = registers["rsp"] + word * _UNTIL_FRAME[offset]
    target = cpu.number_at(at, word)
    return None if target is None else Frame(target, {**registers, "rsp": at + word})


def _frame_pointer(
    cpu: Cpu, pc: int, registers: dict[str, int], place_of: Callable[[int], Place | None]
) -> Frame | None:
    del pc, place_of
    word = cpu.bits // 8
    pointer = registers.get("rbp", 0)
    saved, target = cpu.number_at(pointer, word), cpu.number_at(pointer + word, word)
    if not pointer or saved is None or target is None:
        return None
    return Frame(target, {**registers, "rbp": saved, "rsp": pointer + 2 * word})
