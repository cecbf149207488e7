"""No steady read is older than what the guest knows: all orders of the steps around the counts of `steady`.

Two small machines, every reachable state of which is looked at. In the first, one CPU reads a register, by
itself or from the device, while another CPU writes it. In the second, the guest writes the number of a
register to KVM's ring, and reads the register; the main thread empties the ring whenever it wants.
`test_steady_race` and `test_steady_reads` show that the real code makes these steps in this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

import pytest

T = TypeVar("T")
READS: Final = 3
WRITES: Final = 2


class Stale(Exception):
    """A read has given what was no value of the register while it was made."""


class Shared(NamedTuple):
    """One register: how often the device has been given a write, and how many writes have returned."""

    value: int = 0
    changes: int = 0
    returned: int = 0
    lock: str = ""
    kept: tuple[int, int] = (-1, -1)  # the count that the value is tied to, and the value
    writer: str = "idle"
    reader: str = "idle"
    reads: int = 0
    since: int = 0  # how many writes had returned when the read began
    found: tuple[int, int] = (0, 0)


def by_two_cpus(state: Shared, rule: str) -> Iterator[Shared]:
    """One step of either CPU."""
    match state.writer:
        case "idle" if state.returned < WRITES and not state.lock:
            yield state._replace(writer="count", lock="writer")
        case "count":
            yield state._replace(writer="send", changes=state.changes + (rule != "writes do not count"))
        case "send":
            yield state._replace(writer="return", value=state.value + 1)
        case "return":
            yield state._replace(writer="idle", returned=state.returned + 1, lock="")
    match state.reader:
        case "idle" if state.reads < READS:
            yield state._replace(reader="look", since=state.returned)
        case "look" if state.kept[0] == state.changes:
            yield read(state, state.kept[1])
        case "look" if not state.lock:
            yield state._replace(reader="ask", lock="reader")
        case "ask":
            yield state._replace(reader="keep", lock="", found=(state.changes, state.value))
        case "keep":
            count = state.changes if rule == "tied to the count of later" else state.found[0]
            yield read(state._replace(kept=(count, state.found[1])), state.found[1])


def read(state: Shared, value: int) -> Shared:
    """The CPU has its value."""
    if not state.since <= value <= state.value:
        raise Stale
    return state._replace(reader="idle", reads=state.reads + 1)


class Indexed(NamedTuple):
    """Registers 1 and 2, whose values are their numbers. `program` is what the guest still writes."""

    program: tuple[int, ...] = (1, 2, 2, 1)
    wrote: int = 0  # the number that the guest has written last
    reads: int = 0  # of this number
    ring: int = 0  # the number that waits there, or 0
    device: int = 0  # what the device takes as the number
    changes: int = 0
    moves: int = 0
    lock: str = ""
    main: str = "idle"
    guest: str = "idle"
    seen: int = 0  # what the guest's CPU has seen of the ring
    counts: tuple[int, int] = (0, 0)
    posted: tuple[tuple[int, int], ...] = ()  # by number: the count of changes
    plain: tuple[int, int] = (-1, 0)  # the count of moves, and the value


def by_index(state: Indexed, rule: str) -> Iterator[Indexed]:
    """One step of the guest's CPU, or of the main thread."""
    yield from _main(state, rule)
    match state.guest:
        case "idle" if state.wrote and state.reads < READS:
            yield state._replace(guest="counts" if rule == "counts before the ring" else "ring")
            if state.program:
                yield _write(state)
        case "idle" if state.program:
            yield _write(state)
        case "ring":
            yield state._replace(guest="counts", seen=state.ring)
        case "counts" if rule == "counts before the ring":
            yield state._replace(guest="seen", counts=(state.changes, state.moves))
        case "seen":
            yield from _answer(state._replace(seen=state.ring))
        case "counts":
            yield from _answer(state._replace(counts=(state.changes, state.moves)))
        case "ask" if not state.lock:
            yield _ask(state)


def _write(state: Indexed) -> Indexed:
    """A write that does not exit. The ring keeps the newest alone: it is a latch."""
    return state._replace(wrote=state.program[0], ring=state.program[0], program=state.program[1:], reads=0)


def _main(state: Indexed, rule: str) -> Iterator[Indexed]:
    match state.main:
        case "idle" if state.ring and not state.lock:
            yield state._replace(main="count", lock="main")
        case "count":
            after = state._replace(main="send")
            if rule == "the ring is emptied first":
                after = after._replace(main=f"send {state.ring}", ring=0)
            yield after
        case "send":  # counted before it is sent, and out of the ring when the device has it
            counted = state._replace(changes=state.changes + 1, moves=state.moves + 1)
            yield counted._replace(main=f"sent {state.ring}", device=state.ring)
        case main if main.startswith("sent "):
            left = 0 if state.ring == int(main[5:]) else state.ring
            yield state._replace(main="idle", lock="", ring=left)
        case main if main.startswith("send "):
            counted = state._replace(changes=state.changes + 1, moves=state.moves + 1)
            yield counted._replace(main="idle", lock="", device=int(main[5:]))


def _answer(state: Indexed) -> Iterator[Indexed]:
    """By a value that is known, or by asking."""
    changes, moves = state.counts
    if state.seen and dict(state.posted).get(state.seen) == changes:
        yield _gives(state, state.seen)
    elif not state.seen and state.plain[0] == moves:
        yield _gives(state, state.plain[1])
    else:
        yield state._replace(guest="ask")


def _ask(state: Indexed) -> Indexed:
    """The request takes along what is in the ring: under the lock, at once."""
    if state.ring:
        posted = tuple(sorted((dict(state.posted) | {state.ring: state.changes}).items()))
        after = state._replace(device=state.ring, moves=state.moves + 1, ring=0, posted=posted)
        return _gives(after, state.ring)
    return _gives(state._replace(plain=(state.moves, state.device)), state.device)


def _gives(state: Indexed, value: int) -> Indexed:
    if value != state.wrote:
        raise Stale
    return state._replace(guest="idle", reads=state.reads + 1, seen=0, counts=(0, 0))


def states(start: T, step: Callable[[T, str], Iterator[T]], rule: str = "") -> int:
    """Look at every state, and return how many there are. Raises Stale."""
    seen, waiting = {start}, [start]
    while waiting:
        for following in step(waiting.pop(), rule):
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return len(seen)


def test_read_by_itself_is_never_older_than_a_write_that_has_returned() -> None:
    assert states(Shared(), by_two_cpus) > 100


@pytest.mark.parametrize("rule", ["writes do not count", "tied to the count of later"])
def test_read_is_stale_where(rule: str) -> None:
    with pytest.raises(Stale):
        states(Shared(), by_two_cpus, rule)


def test_register_that_is_read_is_the_one_whose_number_was_written_last() -> None:
    assert states(Indexed(), by_index) > 1000


@pytest.mark.parametrize("rule", ["counts before the ring", "the ring is emptied first"])
def test_register_is_another_one_where(rule: str) -> None:
    with pytest.raises(Stale):
        states(Indexed(), by_index, rule)
