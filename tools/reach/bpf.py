"""Which system calls a seccomp filter lets through: its program is walked in all ways that there are."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Final

X86_64: Final = 0xC000_003E
I386: Final = 0x4000_0003
ALLOW: Final = 0x7FFF_0000
LOG: Final = 0x7FFC_0000
NUMBER, ARCHITECTURE = 0, 4  # in struct seccomp_data; behind them the address and the arguments
_INSTRUCTION: Final = struct.Struct("<HBBI")
LOAD, AND, RETURN, JUMP = 0x20, 0x54, 0x06, 0x05
_JUMPS: Final[dict[int, Callable[[int, int], bool]]] = {
    0x15: lambda value, constant: value == constant,
    0x25: lambda value, constant: value > constant,
    0x35: lambda value, constant: value >= constant,
    0x45: lambda value, constant: bool(value & constant),
}


def actions(program: bytes, number: int, architecture: int = X86_64) -> set[int]:
    """What the filter may return for call `number`, whatever its arguments. ValueError: it has other code."""
    code = list(_INSTRUCTION.iter_unpack(program))
    found: set[int] = set()
    seen: set[tuple[int, int | None]] = set()
    waiting: list[tuple[int, int | None]] = [(0, 0)]
    while waiting:
        state = waiting.pop()
        if state in seen:
            continue
        seen.add(state)
        at, value = state
        operation, if_true, if_false, constant = code[at]
        if operation == LOAD:
            known = {NUMBER: number, ARCHITECTURE: architecture}.get(constant)
            waiting.append((at + 1, known))
        elif operation == AND:
            waiting.append((at + 1, None if value is None else value & constant))
        elif operation == RETURN:
            found.add(constant & 0xFFFF_0000)
        elif operation == JUMP:
            waiting.append((at + 1 + constant, value))
        elif operation in _JUMPS:
            if value is None or _JUMPS[operation](value, constant):
                waiting.append((at + 1 + if_true, value))
            if value is None or not _JUMPS[operation](value, constant):
                waiting.append((at + 1 + if_false, value))
        else:
            raise ValueError(f"instruction {operation:#x}")
    return found


def let_through(programs: Sequence[bytes], number: int, architecture: int = X86_64) -> str:
    """Whether all filters let a call through: "any", or "some" if its arguments decide, or ""."""
    found = [actions(program, number, architecture) for program in programs]
    if not all(one & {ALLOW, LOG} for one in found):
        return ""
    return "any" if all(one <= {ALLOW, LOG} for one in found) else "some"
