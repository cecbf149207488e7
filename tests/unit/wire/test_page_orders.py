"""No wake-up is lost in shared memory: all orders of the steps of `page`'s protocol, as x86 may show them.

Each side is a short program over the words of the page (`tests.support.store_buffers`). The search goes
through every reachable state. One in which the VMM waits for a reply and nobody can move is a lost wake-up.
`test_page_port` and `test_shared` show that the real loops make these steps in this order.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.store_buffers import (
    DEVICE_WAITS,
    OF_DEVICE,
    OF_VMM,
    REPLY,
    REQUEST,
    VMM_WAITS,
    Instruction,
    State,
    assemble,
    search,
)

REQUESTS: Final = 3


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


def lost_wake_up(vmm_lines: list[Instruction], device_lines: list[Instruction]) -> tuple[State | None, int]:
    """A state in which the VMM has not got its replies and nobody moves, or None; and how many were seen."""
    programs = assemble(vmm_lines), assemble(device_lines)
    stuck, seen = search(programs)
    end = len(programs[0])
    assert all(state.sides[1].seen == REQUESTS for state in seen if state.sides[0].at == end)
    return next((state for state in stuck if state.sides[0].at < end), None), len(seen)


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
