"""Two short programs over words of shared memory, and every order of their steps as x86 may show them.

A store goes into the side's store buffer and reaches memory at any later moment, in order; a load sees the
side's own buffer first (TSO); a fence waits until the buffer is empty, and so do ringing and reading a
doorbell, which take a lock in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# Words of memory. Who looks at them knows them by these names, or by names of its own.
REQUEST, REPLY, DEVICE_WAITS, VMM_WAITS = range(4)
# Doorbells.
OF_DEVICE, OF_VMM = range(2)

Instruction = tuple[object, ...]
Program = list[Instruction]


class Side(NamedTuple):
    """`at` is the next instruction, `seen` the last frame, `rung` whether its hand-over rang."""

    at: int = 0
    seen: int = 0
    rung: int = 1
    buffer: tuple[tuple[int, int], ...] = ()


class State(NamedTuple):
    """All that there is."""

    sides: tuple[Side, Side]
    memory: tuple[int, int, int, int] = (0, 0, 0, 0)
    bells: tuple[int, int] = (0, 0)


def assemble(lines: list[Instruction]) -> Program:
    """Labels, which are lines of one word, become the numbers of what follows them."""
    labels: dict[str, int] = {}
    program: Program = []
    for line in lines:
        if len(line) == 1 and str(line[0]).endswith(":"):
            labels[str(line[0])[:-1]] = len(program)
        else:
            program.append(line)
    return [tuple(labels.get(word, word) if type(word) is str else word for word in line) for line in program]


def moves(state: State, programs: tuple[Program, Program]) -> Iterator[State]:
    """The states that one step of either side, or of its store buffer, leads to."""
    for who in range(2):
        side = state.sides[who]
        if side.buffer:
            (word, value), *rest = side.buffer
            memory = list(state.memory)
            memory[word] = value
            yield state._replace(
                sides=_with(state.sides, who, side._replace(buffer=tuple(rest))),
                memory=(memory[0], memory[1], memory[2], memory[3]),
            )
        if side.at < len(programs[who]):
            yield from _step(state, who, programs[who][side.at])


def _with(sides: tuple[Side, Side], who: int, side: Side) -> tuple[Side, Side]:
    return (side, sides[1]) if who == 0 else (sides[0], side)


def _step(state: State, who: int, instruction: Instruction) -> Iterator[State]:
    side = state.sides[who]

    def load(word: int) -> int:
        return next((value for at, value in reversed(side.buffer) if at == word), state.memory[word])

    bells = list(state.bells)
    after = side._replace(at=side.at + 1)
    match instruction:
        case ("store", int(word), int(value)):
            after = after._replace(buffer=(*side.buffer, (word, value)))
        case ("reply",):
            after = after._replace(buffer=(*side.buffer, (REPLY, side.seen)))
        case ("fence",):
            if side.buffer:
                return
        case ("unless", int(word), int(target)):
            after = after if load(word) else after._replace(at=target)
        case ("if", int(word), int(value), int(target)):
            after = after._replace(at=target) if load(word) == value else after
        case ("unless new", int(target)):
            after = after._replace(at=target) if load(REQUEST) == side.seen else after
        case ("see",):
            after = after._replace(seen=load(REQUEST))
        case ("if rung", int(target)):
            after = after._replace(at=target) if side.rung else after
        case ("set rung", int(value)):
            after = after._replace(rung=value)
        case ("jump", int(target)):
            after = after._replace(at=target)
        case ("ring", int(bell)):
            if side.buffer:
                return
            bells[bell] = min(
                bells[bell] + 1, 2
            )  # a read takes them all: whether there are more makes no difference
        case ("wait", int(bell)):
            if side.buffer or not bells[bell]:
                return
            bells[bell] = 0
        case _:
            raise AssertionError(instruction)
    yield state._replace(sides=_with(state.sides, who, after), bells=(bells[0], bells[1]))


def search(programs: tuple[Program, Program]) -> tuple[list[State], set[State]]:
    """The states in which neither side can go on, and all that can be reached."""
    start = State((Side(), Side()))
    seen = {start}
    waiting = [start]
    stuck = []
    while waiting:
        state = waiting.pop()
        following = list(moves(state, programs))
        if not following:
            stuck.append(state)
        waiting += [one for one in following if one not in seen]
        seen.update(following)
    return stuck, seen
