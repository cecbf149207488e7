"""Attention: how the main thread makes the run loop look up, leave, or look whether the guest is halted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from kvmbox.kvm import uapi
from kvmbox.machine.run_loop import LEAVE, LOOK, LoopEnd
from kvmbox.outcome import GUEST_CRASHED
from tests.patience import patience
from tests.unit.machine.test_run_loop import OUT, RFLAGS_IF, Rig


@pytest.fixture
def rig() -> Rig:
    return Rig()


def in_thread(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_leave_from_another_thread_ends_a_halted_guest(rig: Rig) -> None:
    ends: list[LoopEnd] = []
    thread = in_thread(lambda: ends.append(rig.loop.run()))
    rig.loop.request_attention(LEAVE)
    thread.join(30)
    assert ends == [LoopEnd.LEFT]


def test_leave_before_the_first_run_ends_after_it(rig: Rig) -> None:
    rig.loop.request_attention(LEAVE)
    assert rig.loop.run() is LoopEnd.LEFT
    assert rig.vcpu.runs == 1


def test_leave_in_the_middle_of_an_exit_ends_before_the_next(rig: Rig) -> None:
    rig.uart.write = lambda *_: rig.loop.request_attention(LEAVE)  # type: ignore[method-assign]  # what Stop does
    rig.port(OUT, 0x3F8, data=b"x")
    rig.port(OUT, 0x3F8, data=b"never")
    assert rig.loop.run() is LoopEnd.LEFT
    assert rig.vcpu.runs == 1


def look(rig: Rig) -> LoopEnd:
    """The main thread asks the loop to look once, then to leave."""
    rig.peek(lambda: rig.loop.request_attention(LOOK))
    return rig.play()


def test_look_at_a_guest_that_is_halted_for_ever_ends_the_run(rig: Rig) -> None:
    rig.vcpu.mp_state, rig.vcpu.rflags = uapi.KVM_MP_STATE_HALTED, 0
    assert look(rig) is LoopEnd.DECIDED
    assert rig.loop.outcome is not None
    assert rig.loop.outcome.status == GUEST_CRASHED
    assert rig.loop.outcome.reason == "the guest is halted for ever: hlt with interrupts off"
    assert "Code at RIP" in rig.loop.outcome.report


def test_look_at_a_guest_that_is_halted_while_it_handles_an_nmi_minds_no_further_nmi(rig: Rig) -> None:
    line_is_routed_as_nmi(rig)
    rig.vcpu.nmi.masked = 1
    assert look(rig) is LoopEnd.DECIDED


@pytest.mark.parametrize("state", [uapi.KVM_MP_STATE_INIT_RECEIVED, uapi.KVM_MP_STATE_UNINITIALIZED])
def test_look_at_a_guest_that_waits_for_a_start_up_ipi_ends_the_run(rig: Rig, state: int) -> None:
    rig.vcpu.mp_state = state
    assert look(rig) is LoopEnd.DECIDED
    assert rig.loop.outcome is not None
    assert rig.loop.outcome.status == GUEST_CRASHED
    assert "waits for a start-up IPI" in rig.loop.outcome.reason
    assert "Code at RIP" in rig.loop.outcome.report


def halted(rig: Rig) -> None:
    rig.vcpu.mp_state, rig.vcpu.rflags = uapi.KVM_MP_STATE_HALTED, 0


def running(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.mp_state = uapi.KVM_MP_STATE_RUNNABLE


def interrupts_on(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.rflags = RFLAGS_IF


def nmi_pending(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.nmi.pending = 1


def nmi_injected(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.nmi.injected = 1


def smi_pending(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.smi.pending = 1


def line_is_routed_as_nmi(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.ioapic.redirtbl[8] = 4 << 8


def line_is_routed_as_start_up_ipi(rig: Rig) -> None:
    rig.vcpu.mp_state = uapi.KVM_MP_STATE_INIT_RECEIVED
    rig.vcpu.ioapic.redirtbl[8] = 6 << 8


def start_up_ipi_came(rig: Rig) -> None:
    halted(rig)
    rig.vcpu.mp_state = uapi.KVM_MP_STATE_SIPI_RECEIVED


@pytest.mark.parametrize(
    "arrange",
    [running, interrupts_on, nmi_pending, nmi_injected, smi_pending, line_is_routed_as_nmi,
     line_is_routed_as_start_up_ipi, start_up_ipi_came],
)  # fmt: skip
def test_look_at_a_guest_that_may_go_on_lets_it(rig: Rig, arrange: Callable[[Rig], None]) -> None:
    arrange(rig)
    assert look(rig) is LoopEnd.LEFT
    assert rig.loop.outcome is None


@pytest.mark.parametrize("flags", [(LOOK, LEAVE), (LEAVE, LOOK)])
def test_leave_wins_over_look_whichever_came_first(rig: Rig, flags: tuple[int, int]) -> None:
    halted(rig)
    for flag in flags:
        rig.loop.request_attention(flag)
    assert rig.loop.run() is LoopEnd.LEFT


def test_request_just_before_the_kick_is_taken_back_is_seen(rig: Rig) -> None:
    # The kick of this request is cleared with the one before it: the flag must be looked at after that.
    clear = rig.vcpu.clear_kick

    def clear_kick() -> None:
        rig.loop.request_attention(LEAVE)
        clear()

    rig.vcpu.clear_kick = clear_kick  # type: ignore[method-assign]  # another thread asks just then
    rig.port(OUT, 0x3F8, data=b"x")
    rig.uart.write = lambda *_: rig.loop.request_attention(LOOK)  # type: ignore[method-assign]  # no EINTR
    assert rig.loop.run() is LoopEnd.LEFT


def test_kick_without_a_request_is_taken_back(rig: Rig) -> None:
    # Left alone, it would end every KVM_RUN at once.
    rig.peek(rig.vcpu.kick)
    left: list[bool] = []
    rig.peek(lambda: left.append(rig.vcpu.kicked))
    rig.play()
    assert left == [False]


def test_look_is_done_once(rig: Rig) -> None:
    rig.peek(lambda: rig.loop.request_attention(LOOK))
    rig.peek(lambda: halted(rig))
    assert rig.play() is LoopEnd.LEFT


def test_attention_from_two_threads_is_never_lost(rig: Rig) -> None:
    """Each request is followed by a look, although others are taken meanwhile and the loop sleeps."""
    asked, seen = [0, 0], [0, 0]
    looked = threading.Condition()

    def get_mp_state() -> int:
        with looked:
            seen[:] = asked
            looked.notify_all()
        return uapi.KVM_MP_STATE_RUNNABLE

    rig.vcpu.get_mp_state = get_mp_state  # type: ignore[method-assign]  # the fake tells when it is looked at
    ends: list[LoopEnd] = []
    loop = in_thread(lambda: ends.append(rig.loop.run()))
    lost: list[int] = []

    def hammer(number: int) -> None:
        for turn in range(1, 500):
            asked[number] = turn
            rig.loop.request_attention(LOOK)
            with looked:
                if not looked.wait_for(lambda: seen[number] >= asked[number], timeout=patience(20)):
                    lost.append(turn)
                    return

    hammers = [in_thread(lambda: hammer(0)), in_thread(lambda: hammer(1))]
    for thread in hammers:
        thread.join(60)
    rig.loop.request_attention(LEAVE)
    loop.join(60)
    assert lost == []
    assert ends == [LoopEnd.LEFT]


# --- The exit after a look -------------------------------------------------------------------------------


def test_exit_after_a_look_is_told_once_before_it_is_handled(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(lambda: rig.loop.request_attention(LOOK))
    promises: list[bool] = []
    rig.peek(lambda: promises.append(rig.loop.tells_next_exit))
    rig.port(OUT, 0x3F8, data=b"b")
    rig.port(OUT, 0x3F8, data=b"c")
    rig.peek(lambda: promises.append(rig.loop.tells_next_exit))
    assert rig.play() is LoopEnd.LEFT
    # Not the kick that asked for the look, nor any other: COM1 had seen "a" only, and the promise was kept.
    assert rig.told == [(1, False)]
    assert promises == [True, False]
    assert len(rig.uart.accesses) == 3


def test_each_look_promises_anew(rig: Rig) -> None:
    for text in (b"a", b"b"):
        rig.peek(lambda: rig.loop.request_attention(LOOK))
        rig.port(OUT, 0x3F8, data=text)
    assert rig.play() is LoopEnd.LEFT
    assert rig.told == [(0, False), (1, False)]


def test_without_a_look_nothing_is_told(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(rig.vcpu.kick)
    rig.port(OUT, 0x3F8, data=b"b")
    assert rig.play() is LoopEnd.LEFT
    assert rig.told == []


@pytest.mark.parametrize("arrange", [running, interrupts_on])
def test_look_tells_whether_the_vcpu_was_halted(rig: Rig, arrange: Callable[[Rig], None]) -> None:
    arrange(rig)
    look(rig)
    assert rig.loop.halted is (arrange is interrupts_on)


def test_kicks_are_no_exits_of_the_guest(rig: Rig) -> None:
    rig.port(OUT, 0x3F8, data=b"a")
    rig.peek(rig.vcpu.kick)
    rig.play()
    assert (rig.loop.guest_exits, rig.loop.exit_count) == (1, 3)
