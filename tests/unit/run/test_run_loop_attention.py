"""Attention: how the main thread makes the run loop look up, leave, or stand still."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvmbox.base.outcome import Outcome
from kvmbox.kvm import uapi
from kvmbox.run.vcpu.run_state import Access, VcpuState
from tests.support.halves import Half
from tests.support.loop_rig import Rig
from tests.support.patience import patience
from tests.support.scripted_vcpu import IN, OUT


@pytest.fixture
def rig(half: Half) -> Rig:
    return Rig(half)


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_leave_from_another_thread_ends_a_halted_guest(rig: Rig) -> None:
    ends: list[Outcome | None] = []
    thread = in_thread(lambda: ends.append(rig.loop.run()))
    rig.control.leave()
    thread.join(30)
    assert ends == [None]


def test_leave_before_the_first_run_ends_after_it(rig: Rig) -> None:
    rig.control.leave()
    assert rig.loop.run() is None
    assert rig.vcpu.runs == 1


def test_leave_in_the_middle_of_an_exit_ends_before_the_next(rig: Rig) -> None:
    rig.uart.write = lambda *_: rig.control.leave()  # type: ignore[method-assign]  # what Stop does
    rig.port(OUT, 0x3F8, data=b"x")
    rig.port(OUT, 0x3F8, data=b"never")
    assert rig.loop.run() is None
    assert rig.vcpu.runs == 1


def test_paused_loop_stands_still_until_it_is_let_go(rig: Rig) -> None:
    rig.peek(rig.control.pause)
    rig.port(OUT, 0x3F8, data=b"x")
    seen: list[tuple[bool, int]] = []

    def look() -> None:
        seen.append((rig.control.state is VcpuState.STANDING, len(rig.uart.accesses)))
        rig.control.resume()

    rig.while_standing = look
    assert rig.play() is None
    assert seen == [(True, 0)]
    assert rig.control.state is VcpuState.RUNNING
    assert len(rig.uart.accesses) == 1


def test_loop_pauses_behind_an_exit_only_when_kvm_has_completed_it(rig: Rig) -> None:
    rig.uart.write = lambda *_: rig.control.pause()  # type: ignore[method-assign]  # in the exit
    rig.port(OUT, 0x3F8, data=b"x")
    seen: list[int] = []

    def look() -> None:
        seen.append(rig.vcpu.completed)
        rig.control.resume()

    rig.while_standing = look
    assert rig.play() is None
    assert seen == [1]
    assert not rig.vcpu.immediate_exit


def test_paused_loop_shows_whether_it_had_an_exit_to_handle(rig: Rig) -> None:
    asks = iter((True, False))
    seen: list[bool] = []

    def write(*_: object) -> None:
        if next(asks):
            rig.control.pause()

    def look() -> None:
        seen.append(rig.control.in_access)
        rig.control.resume()

    rig.uart.write = write  # type: ignore[assignment]  # asked in the exit
    rig.while_standing = look
    rig.port(OUT, 0x3F8, data=b"x")
    rig.peek(rig.control.pause)  # after its completion: asked while the guest runs
    rig.port(OUT, 0x3F8, data=b"x")
    rig.peek(rig.control.pause)
    assert rig.play() is None
    assert seen == [True, False, False]


def test_pause_in_an_exit_that_is_taken_back_leaves_no_trace(rig: Rig) -> None:
    seen: list[bool] = []
    clear = rig.vcpu.clear_kick

    def clear_kick() -> None:
        if rig.vcpu.completed == 1:  # the exit is completed, and the loop has not looked yet
            rig.control.resume()
        clear()

    def look() -> None:
        seen.append(rig.control.in_access)
        rig.control.resume()

    rig.vcpu.clear_kick = clear_kick  # type: ignore[method-assign]  # another thread lets it go just then
    rig.uart.write = lambda *_: rig.control.pause()  # type: ignore[method-assign]
    rig.while_standing = look
    rig.port(OUT, 0x3F8, data=b"x")

    def ask_again() -> None:
        rig.vcpu.completed = 0
        rig.control.pause()

    rig.peek(ask_again)
    assert rig.play() is None
    assert seen == [False]


def test_loop_that_was_interrupted_pauses_at_once(rig: Rig) -> None:
    rig.peek(rig.control.pause)
    assert rig.play() is None
    assert (rig.standstills, rig.vcpu.completed) == (1, 0)


def test_leave_ends_a_paused_loop(rig: Rig) -> None:
    rig.while_standing = rig.control.leave
    rig.peek(rig.control.pause)
    assert rig.loop.run() is None


def test_pause_that_is_taken_back_before_the_loop_sees_it_pauses_nothing(rig: Rig) -> None:
    rig.control.pause()
    rig.control.resume()
    rig.peek(lambda: None)
    assert rig.play() is None
    assert rig.standstills == 0


def test_pause_that_comes_as_the_loop_is_let_go_pauses_it_again(rig: Rig) -> None:
    def let_go_and_ask_again() -> None:
        rig.control.resume()
        if rig.standstills == 1:
            rig.control.pause()

    rig.while_standing = let_go_and_ask_again
    rig.peek(rig.control.pause)
    assert rig.play() is None
    assert rig.standstills == 2


@pytest.mark.parametrize("leaves_first", [False, True])
def test_leave_wins_over_pause_whichever_came_first(rig: Rig, leaves_first: bool) -> None:
    requests = (rig.control.pause, rig.control.leave)
    for request in reversed(requests) if leaves_first else requests:
        request()
    assert rig.loop.run() is None


def test_request_just_before_the_kick_is_taken_back_is_seen(rig: Rig) -> None:
    # The kick of this request is cleared with the one before it: the flag must be looked at after that.
    clear = rig.vcpu.clear_kick

    def clear_kick() -> None:
        rig.control.leave()
        clear()

    rig.vcpu.clear_kick = clear_kick  # type: ignore[method-assign]  # another thread asks just then
    rig.port(OUT, 0x3F8, data=b"x")
    rig.uart.write = lambda *_: rig.control.pause()  # type: ignore[method-assign]  # no EINTR
    assert rig.loop.run() is None


def test_kick_without_a_request_is_taken_back(rig: Rig) -> None:
    # Left alone, it would end every KVM_RUN at once.
    rig.peek(rig.vcpu.kick)
    left: list[bool] = []
    rig.peek(lambda: left.append(rig.vcpu.kicked))
    rig.play()
    assert left == [False]


def test_attention_from_two_threads_is_never_lost(rig: Rig) -> None:
    """Each request pauses the loop, although others are taken meanwhile and the loop sleeps."""
    asked, seen = [0, 0], [0, 0]
    noted = threading.Condition()

    def note() -> None:
        with noted:
            seen[:] = asked
            noted.notify_all()
        rig.control.resume()

    rig.while_standing = note
    ends: list[Outcome | None] = []
    loop = in_thread(lambda: ends.append(rig.loop.run()))
    lost: list[int] = []

    def hammer(number: int) -> None:
        for turn in range(1, 500):
            asked[number] = turn
            # As the main loop does: a request that met the end of another one is made again.
            for _ in range(100):
                rig.control.pause()
                with noted:
                    if noted.wait_for(lambda: seen[number] >= asked[number], timeout=patience(0.2)):
                        break
            else:
                lost.append(turn)
                return

    hammers = [in_thread(lambda: hammer(0)), in_thread(lambda: hammer(1))]
    for thread in hammers:
        thread.join(60)
    rig.control.leave()
    loop.join(60)
    assert lost == []
    assert ends == [None]


# --- The exit after a pause -----------------------------------------------------------------------------


def test_exit_after_a_pause_is_announced_once_before_it_is_handled(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(rig.control.pause)
    promises: list[bool] = []
    rig.peek(lambda: promises.append(rig.control.announces_exit))
    rig.port(OUT, 0x3F8, data=b"b")
    rig.port(OUT, 0x3F8, data=b"c")
    rig.peek(lambda: promises.append(rig.control.announces_exit))
    assert rig.play() is None
    # Not the kick that asked for the pause, nor any other: COM1 had seen "a" only, and the promise was kept.
    assert rig.announced == [(1, False)]
    assert promises == [True, False]
    assert len(rig.uart.accesses) == 3


def test_each_pause_promises_anew(rig: Rig) -> None:
    for text in (b"a", b"b"):
        rig.peek(rig.control.pause)
        rig.port(OUT, 0x3F8, data=text)
    assert rig.play() is None
    assert rig.announced == [(0, False), (1, False)]


def test_without_a_pause_nothing_is_announced(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(rig.vcpu.kick)
    rig.port(OUT, 0x3F8, data=b"b")
    assert rig.play() is None
    assert rig.announced == []


def test_kicks_are_no_exits_of_the_guest(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(rig.vcpu.kick)
    rig.play()
    assert (rig.loop.routes.guest_exits, rig.loop.routes.exit_count) == (1, 3)


class Watcher:
    """Wants to see so many exits, and notes how often KVM had completed one when it was shown."""

    def __init__(self, rig: Rig, wishes: int) -> None:
        self.rig = rig
        self.wishes = wishes
        self.seen: list[tuple[Access, int]] = []

    def __call__(self, access: Access) -> bool:
        self.seen.append((access, self.rig.vcpu.completed))
        self.wishes -= 1
        return self.wishes > 0


def test_observer_is_shown_each_access_when_kvm_has_completed_it(rig: Rig) -> None:
    watcher = Watcher(rig, 9)
    rig.control.observe(watcher)
    for _ in range(2):  # the second has a route
        rig.port(IN, 0x3FD)
    rig.port(OUT, 0xF4, size=4, data=b"abcd")
    rig.port(IN, 0x3FA, count=3)
    rig.memory(0xD000_0005, 1)
    rig.memory(0xD000_0000, 1, b"x")
    rig.reason(uapi.KVM_EXIT_HLT)
    rig.port(IN, 0x1234, size=2)  # nobody's
    assert rig.play() is None
    accesses = [
        *(("in", 0x3FD, 1), ("in", 0x3FD, 1), ("out", 0xF4, 4), ("in", 0x3FA, 1)),
        *(("read", 0xD000_0005, 1), ("write", 0xD000_0000, 1)),
    ]
    # HLT is completed, too, and is not an access.
    expected = [*zip(accesses, range(1, 7), strict=True), (("in", 0x1234, 2), 8)]
    assert watcher.seen == expected
    assert len(rig.uart.accesses) == 5


def test_observer_that_has_seen_enough_costs_nothing_until_it_is_asked_for_again(rig: Rig) -> None:
    watcher = Watcher(rig, 1)
    rig.control.observe(watcher)
    rig.port(OUT, 0x3F8, data=b"a")
    rig.port(OUT, 0x3F9, data=b"b")

    def again() -> None:
        watcher.wishes = 1
        rig.control.observe(watcher)

    rig.peek(again)
    rig.port(OUT, 0x3FA, data=b"c")
    rig.port(OUT, 0x3FB, data=b"d")
    assert rig.play() is None
    assert watcher.seen == [(("out", 0x3F8, 1), 1), (("out", 0x3FA, 1), 2)]
    assert rig.vcpu.completed == 2


def test_request_that_comes_while_the_observer_looks_is_not_lost(rig: Rig) -> None:
    watcher = Watcher(rig, 1)

    def look(access: Access) -> bool:
        rig.control.observe(look)  # another thread, which thinks that it is over
        return watcher(access)

    rig.control.observe(look)
    rig.port(OUT, 0x3F8, data=b"a")
    rig.port(OUT, 0x3F9, data=b"b")
    assert rig.play() is None
    assert len(watcher.seen) == 2


def test_exits_for_the_observer_alone_are_not_counted(rig: Rig) -> None:
    rig.control.observe(Watcher(rig, 2))
    rig.port(OUT, 0x3F8, data=b"a")
    rig.port(OUT, 0x3F8, data=b"b")
    assert rig.play() is None
    assert (rig.loop.routes.guest_exits, rig.loop.routes.exit_count) == (2, 3)  # and the kick of the end


def test_observed_loop_pauses_and_leaves_as_others_do(rig: Rig) -> None:
    watcher = Watcher(rig, 9)
    shown: list[tuple[int, bool]] = []

    def look() -> None:
        shown.append((len(watcher.seen), rig.control.in_access))
        rig.control.resume()

    rig.control.observe(watcher)
    rig.while_standing = look
    rig.uart.write = lambda *_: rig.control.pause()  # type: ignore[method-assign]  # in the exit
    rig.port(OUT, 0x3F8, data=b"a")
    rig.port(IN, 0x3FD)
    rig.peek(rig.control.pause)
    assert rig.play() is None
    assert shown == [(1, True), (2, False)]
