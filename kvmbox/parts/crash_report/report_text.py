"""An explanation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kvmbox.explain.disassembly import Instruction
from kvmbox.explain.undelivered_exception import Fault
from kvmbox.parts.crash_report.explanation import Explanation, FrameInWords

_WORDS_A_LINE: Final = 4


def lines_of(one: Explanation, registers: str) -> list[str]:
    """The lines, `registers` (several lines) among them."""
    found = _place(one)
    if one.fault is not None:
        found += _fault(one.fault)
    found += registers.split("\n")
    found += _code(one)
    found += _backtrace(one)
    found += _stack(one)
    for name, walk in one.walks:
        found.append(f"{name} {walk.linear:#x}: {walk.stopped}")
        found += [f"  {level}" for level in walk.levels]
    return found


def summary_of(one: Explanation, mode: str) -> list[str]:
    """Cause, place, instruction and callers. `mode` is the line of the registers that tells mode and RIP."""
    found = _place(one)
    if one.fault is not None:
        found += _fault(one.fault)
    found.append(mode)
    if one.instructions:
        found += [_instruction(each, one.pc) for each in one.instructions if each.address == one.pc]
    else:
        found += _code(one)
    return found + _backtrace(one)


def brief_lines_of(one: Explanation) -> list[str]:
    """Where the CPU is, and who called whom."""
    found = [f"at {one.where or hex(one.pc)}", *([f"    {one.source}"] if one.source else [])]
    if len(one.frames) > 1:
        found += ["Backtrace:", *_frames(one.frames)]
    return found


def _place(one: Explanation) -> list[str]:
    found = []
    if one.where:
        found.append(f"at {one.where}")
        if one.source:
            found.append(f"    {one.source}")
    if one.arrival is not None:
        found.append(f"At {one.pc:#x}, where the image has no code: {one.arrival.what}")
    return found


def _backtrace(one: Explanation) -> list[str]:
    if len(one.frames) > 1 or any(frame.name for frame in one.frames):
        return ["Backtrace:", *_frames(one.frames)]
    return []


def _fault(fault: Fault) -> list[str]:
    found = [f"Cause: {fault.name}: {fault.what}"]
    if fault.first.problem:
        found.append(f"  not delivered: {fault.first.problem}")
        if fault.first.raw:
            found.append(f"    {fault.first}")
        if fault.double.problem and fault.double.problem != fault.first.problem:
            found.append(f"  nor the double fault: {fault.double.problem}")
        elif fault.double.problem:
            found.append("  nor the double fault, for the same reason")
    return found


def _code(one: Explanation) -> Iterator[str]:
    yield "Code at RIP: " + " ".join("??" if byte is None else f"{byte:02x}" for byte in one.code)
    yield from (_instruction(each, one.pc) for each in one.instructions)


def _instruction(one: Instruction, pc: int) -> str:
    mark = "->" if one.address == pc else "  "
    return f"  {mark} {one.address:#x}  {one.code.hex(' '):<24} {one.text}"


def _frames(frames: Sequence[FrameInWords]) -> Iterator[str]:
    """The frames; of equal ones in a row, which is recursion, the first and the last."""
    number = 0
    while number < len(frames):
        frame, equal = frames[number], 1
        while number + equal < len(frames) and frames[number + equal] == frame:
            equal += 1
        yield " ".join(
            (
                f"  #{number:<2} {frame.address:#x}",
                *([frame.name] if frame.name else []),
                *([f"({frame.line})"] if frame.line else []),
                *([f"and {equal - 1} more times"] if equal > 2 else []),
            )
        )
        if frame.source:
            yield f"        {frame.source}"
        number += equal if equal > 2 else 1


def _stack(one: Explanation) -> list[str]:
    if not one.stack:
        return ["Stack: not mapped"]
    digits = 2 * (one.bits // 8 if one.bits != 16 else 2)
    named = [f"  {word.address:#x}  {word.value:0{digits}x}  {word.name}" for word in one.stack if word.name]
    if named:
        return ["Stack, words with a name:", *named]
    rows = [one.stack[at : at + _WORDS_A_LINE] for at in range(0, len(one.stack), _WORDS_A_LINE)]
    return [
        "Stack:",
        *(
            f"  {row[0].address:#x}  " + " ".join(f"{word.value:0{digits}x}" for word in row)
            for row in rows[:2]
        ),
    ]
