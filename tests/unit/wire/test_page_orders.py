"""No wake-up is lost in shared memory: all orders of the steps of `page`'s protocol, as x86 may show them.

Each side is a short program over the words of the page. A store goes into the side's store buffer and reaches
memory at any later moment, in order; a load sees the side's own buffer first (TSO); a fence waits until the
buffer is empty, and so do ringing and reading a doorbell, which take a lock in the kernel. The search goes
through every reachable state. One in which the VMM waits for a reply and nobody can move is a lost wake-up.
`test_page_port` and `test_shared` show that the real loops make these steps in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

REQUESTS: Final = 3

# Words of the page.
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


def vmm(way: str, *, second_look: bool = True, fences: bool = True) -> list[Instruction]:
    """One request after another: by `access` with or without spinning, or by `request` (the main thread)."""
    lines: list[Instruction] = []
    for number in range(1, REQUESTS + 1):
        here = f"{way}{number}"
        fence: list[Instruction] = [("fence",)] if fences else []
        ring: list[Instruction] = [
            ("unless", DEVICE_WAITS, f"{here} is awake {len(lines)}"),
            ("ring", OF_DEVICE),
            (f"{here} is awake {len(lines)}:",),
        ]
        if way == "spin":
            lines += [("store", REQUEST, number), *ring, ("if", REPLY, number, f"{here} done")]
            if second_look:
                again = f"{here} is awake again"
                lines += [*fence, ("unless", DEVICE_WAITS, again), ("ring", OF_DEVICE), (f"{again}:",)]
        elif way == "sleep":
            lines += [("store", VMM_WAITS, 1), ("store", REQUEST, number), ("ring", OF_DEVICE)]
        else:
            lines += [("store", VMM_WAITS, 1), ("store", REQUEST, number), *fence, *ring]
        lines += [
            ("store", VMM_WAITS, 1),
            *fence,
            (f"{here} look:",),
            ("if", REPLY, number, f"{here} answered"),
            ("wait", OF_VMM),
            ("jump", f"{here} look"),
            (f"{here} answered:",),
            ("store", VMM_WAITS, 0),
            (f"{here} done:",),
        ]
    return lines


def device(*, second_look: bool = True, fences: bool = True, last_look: bool = True) -> list[Instruction]:
    """`serve_page`."""
    fence: list[Instruction] = [("fence",)] if fences else []
    look: list[Instruction] = [
        ("if rung", "look once more"),
        ("unless", VMM_WAITS, "look once more"),
        ("ring", OF_VMM),
        ("set rung", 1),
    ]
    return [
        ("top:",),
        ("unless new", "nothing"),
        ("jump", "serve"),
        ("nothing:",),
        ("store", DEVICE_WAITS, 1),
        *fence,
        *(look if second_look else []),
        ("look once more:",),
        *([("unless new", "sleep"), ("jump", "awake")] if last_look else []),
        ("sleep:",),
        ("wait", OF_DEVICE),
        ("awake:",),
        ("store", DEVICE_WAITS, 0),
        ("jump", "top"),
        ("serve:",),
        ("see",),
        ("reply",),
        ("set rung", 0),
        ("unless", VMM_WAITS, "top"),
        ("set rung", 1),
        ("ring", OF_VMM),
        ("jump", "top"),
    ]


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


def lost_wake_up(vmm_lines: list[Instruction], device_lines: list[Instruction]) -> tuple[State | None, int]:
    """A state in which the VMM has not got its replies and nobody moves, or None; and how many were seen."""
    programs = assemble(vmm_lines), assemble(device_lines)
    start = State((Side(), Side()))
    seen = {start}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        stuck = True
        for following in moves(state, programs):
            stuck = False
            if following not in seen:
                seen.add(following)
                waiting.append(following)
        if stuck and state.sides[0].at < len(programs[0]):
            return state, len(seen)
        if state.sides[0].at == len(programs[0]):
            assert state.sides[1].seen == REQUESTS
    return None, len(seen)


def mixed(*ways: str) -> list[Instruction]:
    """Each request another way."""
    return [line for number, way in enumerate(ways, start=1) for line in _only(vmm(way), way, number)]


def _only(lines: list[Instruction], way: str, number: int) -> list[Instruction]:
    """The lines of request `number`: they end with its label `done`."""
    ends = [index for index, line in enumerate(lines) if line == (f"{way}{number} done:",)]
    starts = [index for index, line in enumerate(lines) if line == (f"{way}{number - 1} done:",)]
    return lines[(starts[0] + 1 if starts else 0) : ends[0] + 1]


WAYS: Final = ("spin", "sleep", "main")


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("third", WAYS)
def test_no_order_of_steps_leaves_both_sides_asleep(first: str, second: str, third: str) -> None:
    stuck, states = lost_wake_up(mixed(first, second, third), device())
    assert stuck is None
    assert states > 500  # it has looked at something


def test_without_the_devices_second_look_a_wake_up_is_lost() -> None:
    stuck, _ = lost_wake_up(vmm("spin"), device(second_look=False))
    assert stuck is not None
    assert stuck.memory[VMM_WAITS] == stuck.memory[DEVICE_WAITS] == 1
    assert stuck.memory[REPLY] == stuck.memory[REQUEST]  # it was answered, and nobody rang


def test_without_the_vmms_second_look_a_wake_up_is_lost() -> None:
    stuck, _ = lost_wake_up(vmm("spin", second_look=False), device())
    assert stuck is not None
    assert stuck.memory[VMM_WAITS] == stuck.memory[DEVICE_WAITS] == 1
    assert stuck.memory[REPLY] < stuck.memory[REQUEST]  # it was asked, and nobody rang


@pytest.mark.parametrize("way", ["spin", "main"])
def test_without_the_vmms_fences_a_wake_up_is_lost(way: str) -> None:
    stuck, _ = lost_wake_up(vmm(way, fences=False), device())
    assert stuck is not None


@pytest.mark.parametrize("way", WAYS)
def test_without_the_devices_fence_a_wake_up_is_lost_unless_the_vmm_always_rings(way: str) -> None:
    stuck, _ = lost_wake_up(vmm(way), device(fences=False))
    assert (stuck is None) == (way == "sleep")


def test_without_the_devices_last_look_a_wake_up_is_lost() -> None:
    stuck, _ = lost_wake_up(vmm("spin"), device(last_look=False))
    assert stuck is not None
