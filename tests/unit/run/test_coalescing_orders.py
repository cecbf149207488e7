"""No write is overtaken, given twice or lost, and nobody hangs: all orders of the steps around KVM's ring.

Three parties share a ring of three entries. The *kernel* runs the guest, which makes writes that do not
exit ("w") and writes that do ("X"); it stores an entry, then moves `last`. The *vCPU thread* handles an exit:
it looks whether the ring is empty, drains it under the lock if not, then passes on the write that exited. The
*main thread* flushes whenever it wants. The search goes through every reachable state. In each, what the
devices have got must be the beginning of what the guest wrote; the guest's end must be reached from each.

One write may be for a process that hangs: whoever gives it waits. The main thread runs out of patience;
the vCPU thread waits until the main thread, unless it waits itself, kills the process. Then giving raises,
and nothing that the guest wrote behind it may reach a device.

`test_coalescing` and `test_run_loop_ring` show that the real class makes these steps in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import pytest

ENTRIES: Final = 3
PROGRAMS: Final = ("wX", "XwXwX", "wwXwX", "wwwX", "wwwwwXX", "wXwwwXw")


class Rules(NamedTuple):
    """How the threads handle the ring. The defaults are what `coalescing` does."""

    store_first: bool = False
    """`first` moves before the devices are asked: what kvmbox did once."""
    pass_failed: bool = False
    """`first` also passes a write whose giving raised: what kvmbox did once."""
    remembers: bool = True
    """Once giving has raised, whoever takes the lock next gives nothing."""
    main_waits: bool = False
    """The main thread waits for the lock."""
    vcpu_locks: bool = True
    """The vCPU thread takes the lock before it looks at the indices for good."""
    hung: int = -1
    """Which write of the guest is for a process that hangs."""


class Taker(NamedTuple):
    """A thread that takes from the ring: its next step, and how far it has got."""

    at: str = "idle"
    first: int = 0
    last: int = 0


class State(NamedTuple):
    written: int = 0  # how many writes the guest has made
    appending: bool = False  # the kernel has stored the entry of the next, and not yet moved `last`
    first: int = 0
    last: int = 0
    slots: tuple[int, ...] = (-1,) * ENTRIES
    lock: str = ""
    killed: bool = False
    failed: bool = False  # giving has raised
    vcpu: Taker = Taker()
    main: Taker = Taker()
    given: tuple[int, ...] = ()  # what the devices were given, in order; the write that raised counts


def moves(state: State, program: str, rules: Rules) -> Iterator[State]:
    """The states that one step of any party leads to."""
    if state.vcpu.at == "idle":  # in KVM_RUN
        yield _kernel(state, program)
    else:
        yield from _vcpu(state, program, rules)
    if state.main.at == "idle" and state.first != state.last:
        yield from _lock(state, "main", waits=rules.main_waits)
    elif state.main.at != "idle":
        yield from _take(state, "main", "idle", rules)
    hangs = state.vcpu.at == "give" and _next_of(state, state.vcpu) == rules.hung
    if hangs and state.main.at == "idle" and not state.killed:
        yield state._replace(killed=True)


def _kernel(state: State, program: str) -> State:
    if state.written == len(program):
        return state._replace(vcpu=Taker("lock"))  # the loop ends: what is left is drained
    if program[state.written] == "X":
        return state._replace(vcpu=Taker("look"))
    if state.appending:
        return state._replace(written=state.written + 1, appending=False, last=(state.last + 1) % ENTRIES)
    if (state.last + 1) % ENTRIES == state.first:
        return state._replace(vcpu=Taker("look"))  # no room: this one exits
    slots = list(state.slots)
    slots[state.last] = state.written
    return state._replace(appending=True, slots=tuple(slots))


def _vcpu(state: State, program: str, rules: Rules) -> Iterator[State]:
    at = state.vcpu.at
    if at == "look":
        yield state._replace(vcpu=Taker("access" if state.first == state.last else "lock"))
    elif at == "lock" and rules.vcpu_locks:
        yield from _lock(state, "vcpu", waits=True)
    elif at == "lock":
        yield state._replace(vcpu=Taker("indices"))
    elif at == "access":
        if state.written < len(program):
            given = (*state.given, state.written)
            yield state._replace(vcpu=Taker(), given=given, written=state.written + 1)
        else:
            yield state._replace(vcpu=Taker("done"))
    elif at != "done":
        yield from _take(state, "vcpu", "access", rules)


def _lock(state: State, who: str, *, waits: bool) -> Iterator[State]:
    if not state.lock:
        yield _set(state, who, Taker("indices"), lock=who)
    elif waits:
        yield _set(state, who, Taker("waits"))


def _take(state: State, who: str, then: str, rules: Rules) -> Iterator[State]:
    """One step of `_give_all`, entry by entry."""
    taker = state.vcpu if who == "vcpu" else state.main
    match taker.at:
        case "waits":
            if not state.lock:
                yield _set(state, who, Taker("indices"), lock=who)
        case "indices" if state.failed and rules.remembers:
            yield _set(state, who, Taker("raise"))
        case "indices":
            after = Taker("give", state.first, state.last)
            yield _set(state, who, after, **({"first": state.last} if rules.store_first else {}))
        case "give" if taker.first == taker.last:
            yield _set(state, who, taker._replace(at="unlock"))
        case "give":
            hangs = _next_of(state, taker) == rules.hung
            if hangs and who == "vcpu" and not state.killed:
                return
            after = taker._replace(at="fail" if hangs else "store")
            yield _set(state, who, after, given=(*state.given, _next_of(state, taker)))
        case "store" | "fail" as step:
            first = (taker.first + 1) % ENTRIES
            after = Taker("raise") if step == "fail" else taker._replace(at="give", first=first)
            moved = not rules.store_first and (step == "store" or rules.pass_failed)
            failed = state.failed or step == "fail"
            yield _set(state, who, after, failed=failed, **({"first": first} if moved else {}))
        case "raise":
            # The loop of the vCPU thread ends. That of the main thread ends the run, some time later.
            yield _set(state, who, Taker("done" if who == "vcpu" else then), lock="")
        case "unlock":
            left = state.first != state.last and who == "vcpu"
            yield _set(state, who, Taker("lock" if left else then), lock="")
        case _:
            raise AssertionError(taker)


def _next_of(state: State, taker: Taker) -> int:
    return state.slots[taker.first]


def _set(state: State, who: str, taker: Taker, **others: object) -> State:
    return state._replace(**{who: taker}, **others)  # type: ignore[arg-type]  # names of the tuple's members


def search(program: str, rules: Rules) -> tuple[str, int]:
    """What goes wrong in some order of the steps, "" if nothing does; and how many states were seen."""
    start = State()
    seen = {start}
    waiting = [start]
    while waiting:
        state = waiting.pop()
        if state.given != tuple(range(len(state.given))):
            return "not in order and once", len(seen)
        if state.failed and len(state.given) > rules.hung + 1:
            return "went on after a failure", len(seen)
        if (
            state.vcpu.at == "done"
            and not state.lock
            and not state.failed
            and len(state.given) != len(program)
        ):
            return "lost", len(seen)
        stuck = True
        for following in moves(state, program, rules):
            stuck = False
            if following not in seen:
                seen.add(following)
                waiting.append(following)
        if stuck and state.vcpu.at != "done":
            return "stuck", len(seen)
    return "", len(seen)


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_order_of_steps_overtakes_repeats_or_loses_a_write(program: str) -> None:
    for hung in (-1, *(index for index, kind in enumerate(program) if kind == "w")):
        wrong, states = search(program, Rules(hung=hung))
        assert wrong == ""
        assert states > 20  # it has looked at something


def found(rules: Rules) -> set[str]:
    """What goes wrong with these rules in any of the programs."""
    return {search(program, rules)[0] for program in PROGRAMS} - {""}


def test_first_that_moves_before_the_devices_are_asked_lets_an_exit_overtake() -> None:
    assert found(Rules(store_first=True)) == {"not in order and once"}


def test_vcpu_thread_that_does_not_wait_for_the_lock_gives_a_write_twice() -> None:
    assert found(Rules(vcpu_locks=False)) == {"not in order and once"}


def test_main_thread_that_waits_for_the_lock_hangs_with_the_vcpu_thread() -> None:
    assert "stuck" in {search("wX", Rules(main_waits=True, hung=0))[0]}


def test_first_that_passes_a_failed_write_lets_the_guest_go_on() -> None:
    assert search("wX", Rules(pass_failed=True, hung=0))[0] == "went on after a failure"


def test_failure_that_is_not_remembered_gives_a_write_twice() -> None:
    assert search("wX", Rules(remembers=False, hung=0))[0] == "not in order and once"
