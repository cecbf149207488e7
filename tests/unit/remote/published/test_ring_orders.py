"""No notification of a virtqueue is lost: all orders of the steps of VIRTIO 1.2, 2.7.7 and 2.7.10, on x86.

One side puts entries into a ring and looks whether the other one wants to hear of it. The other side takes
what is there, says that it wants to hear of more, looks again, and sleeps. The driver and `Ring.take` are two
such sides, for chains; `Ring.give_back` with `wants_interrupt`, and the driver, are two for interrupts.
`test_ring` shows that the walker makes these steps in this order. An entry that nobody takes is lost.
"""

from __future__ import annotations

from typing import Final

import pytest

from tests.support.store_buffers import (
    DEVICE_WAITS,
    OF_DEVICE,
    REPLY,
    REQUEST,
    Instruction,
    assemble,
    search,
)

ENTRIES: Final = 3
INDEX, EVENT, NO_NOTICE = REQUEST, REPLY, DEVICE_WAITS
WAYS: Final = ("flags", "event index")


def putting(way: str, *, fence: bool = True) -> list[Instruction]:
    """Put one entry after the other into the ring."""
    lines: list[Instruction] = []
    for number in range(1, ENTRIES + 1):
        lines.append(("store", INDEX, number))
        lines += [("fence",)] if fence else []
        notify, done = f"notify {number}", f"done {number}"
        if way == "flags":
            lines += [("unless", NO_NOTICE, notify), ("jump", done)]
        else:
            lines += [("if", EVENT, number - 1, notify), ("jump", done)]
        lines += [(f"{notify}:",), ("ring", OF_DEVICE), (f"{done}:",)]
    return lines


def taking(way: str, *, fence: bool = True, again: bool = True, suppresses: bool = True) -> list[Instruction]:
    """Take what is there whenever it is notified."""
    # `reply` stores the index of what was seen last.
    wants: Instruction = ("store", NO_NOTICE, 0) if way == "flags" else ("reply",)
    refuses: list[Instruction] = [("store", NO_NOTICE, 1)] if suppresses and way == "flags" else []
    return [
        ("top:",),
        ("wait", OF_DEVICE),
        ("walk:",),
        ("unless new", "empty"),
        ("see",),
        *refuses,
        ("jump", "walk"),
        ("empty:",),
        wants,
        *([("fence",)] if fence else []),
        *([("unless new", "top"), ("jump", "walk")] if again else [("jump", "top")]),
    ]


def is_lost(one: list[Instruction], other: list[Instruction]) -> bool:
    """Whether an entry is taken by nobody, in some order."""
    stuck, seen = search((assemble(one), assemble(other)))
    assert len(seen) > 50  # it has looked at something
    return any(state.sides[1].seen != ENTRIES for state in stuck)


@pytest.mark.parametrize("way", WAYS)
def test_every_entry_is_taken_in_all_orders(way: str) -> None:
    assert not is_lost(putting(way), taking(way))


@pytest.mark.parametrize("way", WAYS)
def test_entry_is_lost_without_the_fence_of_the_side_that_puts_it_there(way: str) -> None:
    assert is_lost(putting(way, fence=False), taking(way))


@pytest.mark.parametrize("way", WAYS)
def test_entry_is_lost_without_the_fence_before_the_second_look(way: str) -> None:
    assert is_lost(putting(way), taking(way, fence=False))


@pytest.mark.parametrize("way", WAYS)
def test_entry_is_lost_without_the_second_look(way: str) -> None:
    assert is_lost(putting(way), taking(way, again=False))


def test_flag_that_is_never_set_loses_nothing_without_a_fence() -> None:
    """Or the tests above would find the fence for another reason than notices that are refused."""
    assert not is_lost(putting("flags", fence=False), taking("flags", fence=False, suppresses=False))
