"""Interrupt lines: the OR of their sources, each change passed on once and in order."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.host.interrupt_lines import InterruptRouter


class Controllers:
    """The interrupt controllers of a virtual machine: note each change."""

    def __init__(self) -> None:
        self.changes: list[tuple[int, int]] = []

    def set_line(self, gsi: int, level: int) -> None:
        self.changes.append((gsi, level))


def router_with_controllers() -> tuple[InterruptRouter, Controllers]:
    router, controllers = InterruptRouter(), Controllers()
    router.attach(controllers.set_line)
    return router, controllers


def test_source_changes_reach_the_controllers_in_order() -> None:
    router, controllers = router_with_controllers()
    timer, clock = router.source(0), router.source(8)
    timer(1, 0)
    clock(1, 0)
    timer(0, 0)
    timer(1, 0)
    assert controllers.changes == [(0, 1), (8, 1), (0, 0), (0, 1)]
    assert (router.lines[0].raised, router.lines[8].raised) == (2, 1)


def test_taken_line_follows_its_taker_alone_and_the_others_when_it_is_given_back() -> None:
    router, controllers = router_with_controllers()
    pit, (hpet, take) = router.source(0), router.replacing_source(0)
    pit(1, 0)
    take(1)
    assert controllers.changes == [(0, 1), (0, 0)]  # what the other one holds high is not heard
    pit(0, 0)
    pit(1, 3)
    assert controllers.changes[2:] == []
    hpet(1, 2)
    hpet(0, 0)
    assert controllers.changes[2:] == [(0, 1), (0, 0)]
    take(0)
    assert controllers.changes[4:] == [
        (0, 1)
    ]  # and it is, at its present level, as soon as the line is its own
    assert (router.lines[0].raised, router.lines[0].coalesced) == (3, 2)
    assert router.lines[0].is_high


def test_taken_line_is_set_by_its_taker_alone_in_a_new_machine() -> None:
    router, controllers = InterruptRouter(), Controllers()
    pit, (_, take) = router.source(0), router.replacing_source(0)
    pit(1, 0)
    take(1)
    router.attach(controllers.set_line)
    assert controllers.changes == []


def test_source_same_level_again_is_no_change() -> None:
    router, controllers = router_with_controllers()
    timer = router.source(0)
    timer(0, 0)
    timer(1, 0)
    timer(1, 0)
    timer(0, 0)
    timer(0, 0)
    assert controllers.changes == [(0, 1), (0, 0)]
    assert router.lines[0].raised == 1


def test_shared_line_is_high_while_any_source_is() -> None:
    router, controllers = router_with_controllers()
    com1, com3 = router.source(4), router.source(4)
    com1(1, 0)
    com3(1, 0)
    com1(0, 0)
    assert controllers.changes == [(4, 1)]
    com3(0, 0)
    assert controllers.changes == [(4, 1), (4, 0)]
    assert router.lines[4].raised == 1


def test_coalesced_ticks_are_counted_whether_or_not_the_line_changes() -> None:
    router, _ = router_with_controllers()
    timer = router.source(0)
    timer(1, 3)
    timer(1, 4)
    timer(0, 0)
    assert (router.lines[0].raised, router.lines[0].coalesced) == (1, 7)


def test_attach_drives_high_the_lines_that_are_high_and_raises_no_count() -> None:
    router, old = router_with_controllers()
    com1, timer = router.source(4), router.source(0)
    com1(1, 0)
    timer(1, 0)
    timer(0, 0)
    router.detach()
    new = Controllers()
    router.attach(new.set_line)
    assert new.changes == [(4, 1)]
    assert router.lines[4].raised == 1
    com1(0, 0)
    assert new.changes == [(4, 1), (4, 0)]
    assert old.changes[-1] == (0, 0)


def test_line_is_asserted_again_only_while_it_is_high_and_counts_no_rise() -> None:
    router, controllers = router_with_controllers()
    keyboard = router.source(1)
    router.assert_again(1)
    keyboard(1, 0)
    router.assert_again(1)
    assert controllers.changes == [(1, 1), (1, 1)]
    assert router.lines[1].raised == 1
    keyboard(0, 0)
    router.assert_again(1)
    router.detach()
    keyboard(1, 0)
    router.assert_again(1)
    assert controllers.changes == [(1, 1), (1, 1), (1, 0)]


def test_detached_router_remembers_changes() -> None:
    router, controllers = router_with_controllers()
    com1 = router.source(4)
    com1(1, 0)
    router.detach()
    com1(0, 0)
    com1(1, 0)
    com1(0, 0)
    assert controllers.changes == [(4, 1)]
    new = Controllers()
    router.attach(new.set_line)
    assert new.changes == []


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1))))
def test_line_is_the_or_of_its_sources(steps: list[tuple[int, int]]) -> None:
    router, controllers = router_with_controllers()
    lines = (4, 4, 4, 3, 3)
    sources = [router.source(gsi) for gsi in lines]
    levels = [0] * len(lines)
    for number, level in steps:
        sources[number](level, 0)
        levels[number] = level
        for gsi in (3, 4):
            wanted = max(have for have, line in zip(levels, lines, strict=True) if line == gsi)
            shown = [value for line, value in controllers.changes if line == gsi]
            assert (shown[-1] if shown else 0) == wanted
    for gsi in (3, 4):
        shown = [value for line, value in controllers.changes if line == gsi]
        assert shown == [1, 0] * (len(shown) // 2) + [1] * (len(shown) % 2)
        assert router.lines[gsi].raised == shown.count(1)


def test_many_threads_never_leave_a_line_wrong() -> None:
    router, controllers = router_with_controllers()
    sources = [router.source(4) for _ in range(4)]

    def hammer(number: int) -> None:
        for _ in range(300):
            sources[number](1, 1)
            sources[number](0, 0)

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shown = [level for _, level in controllers.changes]
    assert shown == [1, 0] * (len(shown) // 2)
    assert router.lines[4].raised == len(shown) // 2
    assert router.lines[4].coalesced == 1200


def test_lines_go_on_where_they_were_and_controllers_that_have_them_hear_no_edge() -> None:
    router, controllers = InterruptRouter(), Controllers()
    timer, other, (hpet, _take) = router.source(0), router.source(4), router.replacing_source(8)
    clock = router.source(8)
    router.resume([(0, 1, -1), (4, 0, -1), (8, 0b1100, 0b100)])
    router.attach(controllers.set_line, are_set=True)
    assert controllers.changes == []
    timer(1, 0)
    clock(0, 0)  # is not heard: the other one has taken the line
    assert controllers.changes == []
    timer(0, 0)
    other(1, 0)
    hpet(0, 0)
    assert controllers.changes == [(0, 0), (4, 1), (8, 0)]
