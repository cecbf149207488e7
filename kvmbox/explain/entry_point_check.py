"""How a CPU got to an address where the image has no code: by a call of a null pointer, or by a return.

A call leaves its return address at the top of the stack. A return leaves the address that it went to in the
word below. Where page 0 is mapped, the CPU then executes the interrupt vectors, as far as these happen to be
instructions. Some of them pop or push, so the words near the stack pointer are searched. A return address is
told from other words by the call in front of it.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.layout import BIOS_DATA_END
from kvmbox.base.value_classes import Value
from kvmbox.explain.debug_info import DebugInfo
from kvmbox.explain.paging import NO_EXECUTE
from kvmbox.explain.stopped_cpu import Cpu

NULL_END: Final = 16
"""Where paging keeps page 0 away, an address below this one is a null pointer."""

NEAR: Final = (0, -1, 1, -2, 2, -3, 3, -4, 4)
"""In words from the stack pointer: where the return address of a call of a null pointer may be."""

MOST_BELOW: Final = 64
"""How many words below the stack are searched for the last call of the function that returned."""

_LONGEST_CALL: Final = 7
_NEAR_CALL: Final = 0xE8


class Arrival(Value):
    """What happened, as a sentence without its full stop, and the advice for the hint."""

    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


def arrival(cpu: Cpu, debug_info: DebugInfo) -> Arrival | None:
    """How `cpu` got to where it is, or None if it is in the image, or nothing is wrong with its address."""
    if cpu.bits == 16 or debug_info.place(cpu.pc) is not None:
        return None
    place, rip, word = cpu.walk(cpu.pc), cpu.regs.rip, cpu.bits // 8
    can_execute = place.physical is not None and not place.rights & NO_EXECUTE
    if can_execute and rip >= BIOS_DATA_END:
        return None
    is_null = rip < (BIOS_DATA_END if can_execute else NULL_END)
    if is_null:
        for index in NEAR if can_execute else NEAR[:1]:
            found = cpu.number_at(cpu.sp + index * word, word)
            if found is not None and _is_behind_call(cpu, debug_info, found, direct=False):
                by = debug_info.function(found - 1) or f"the code before {found:#x}"
                return Arrival(f"a null pointer was called by {by}", "look at the function pointer there")
    popped = cpu.number_at(cpu.sp - word, word)
    if not is_null and popped != rip:
        return None
    entry = debug_info.entry
    if entry is not None and _returned_from(cpu, debug_info) == entry:
        return Arrival(
            f"the entry function {entry} returned, and nothing had called it",
            "let it end with a write to the debug-exit or shutdown port, or with a loop",
        )
    if is_null:
        return Arrival(
            "a null pointer was called, or a function returned to 0",
            "look at function pointers, and at what the entry function does at its end",
        )
    return Arrival(
        "probably a return address that was overwritten: it is the word below the stack",
        "look at the arrays on the stack of the function that returned",
    )


def _returned_from(cpu: Cpu, debug_info: DebugInfo) -> str | None:
    """The function that made the last call from a stack that is gone now: so it is the one that returned."""
    word = cpu.bits // 8
    for index in range(1, MOST_BELOW + 1):
        found = cpu.number_at(cpu.sp - index * word, word)
        if found is None:
            return None
        if _is_behind_call(cpu, debug_info, found, direct=True):
            place = debug_info.place(found - 1)
            return None if place is None else place.symbol
    return None


def _is_behind_call(cpu: Cpu, debug_info: DebugInfo, address: int, *, direct: bool) -> bool:
    """Whether a call is in front of `address`: one through a pointer, or with `direct` any near call."""
    if address < BIOS_DATA_END or (debug_info.entry is not None and debug_info.place(address - 1) is None):
        return False
    code = cpu.read(address - _LONGEST_CALL, _LONGEST_CALL)
    if len(code) < _LONGEST_CALL:
        return False
    if direct and code[-5] == _NEAR_CALL:
        return True
    return any(
        code[-size] == 0xFF and code[1 - size] >> 3 & 7 == 2 and _size(code[-size:]) == size
        for size in range(2, _LONGEST_CALL + 1)
    )


def _size(code: bytes) -> int:
    """The size of a call with a ModRM byte (Intel SDM volume 2, tables 2-2 and 2-3)."""
    mode, base = code[1] >> 6, code[1] & 7
    if mode == 3:
        return 2
    has_index = base == 4
    if mode == 0 and has_index and len(code) > 2:
        base = code[2] & 7
    return 2 + has_index + (4 if mode == 2 or (mode == 0 and base == 5) else mode)
