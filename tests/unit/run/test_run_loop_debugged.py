"""A run loop beside a debugger, who is asked about each rare exit."""

from __future__ import annotations

import pytest

from kvmbox.kvm import exits, uapi
from kvmbox.outcome import GUEST_CRASHED
from kvmbox.run.vcpu_loop import CRASH, IGNORE, LEAVE, OTHERS, STOP, LoopEnd
from tests.support.halves import Half
from tests.support.loop_rig import Rig
from tests.support.scripted_vcpu import OUT


class Debugged:
    """A rig whose debugger gives these answers, and then none."""

    def __init__(self, half: Half, *answers: int) -> None:
        self.rig = Rig(half)
        self.answers = list(answers)
        self.asked: list[exits.Exit] = []
        self.rig.met = self.met
        self.rig.named(None)
        self.rig.while_parked = self.go_on

    def met(self, found: exits.Exit) -> int:
        self.asked.append(found)
        return self.answers.pop(0) if self.answers else OTHERS

    def go_on(self) -> None:
        self.rig.loop.go_on()
        self.rig.loop.unpark()


def test_stopped_cpu_stands_still_and_goes_on(half: Half) -> None:
    debugged = Debugged(half, STOP)
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    debugged.rig.port(OUT, 0x3F8, data=b"x")
    assert debugged.rig.play() is LoopEnd.LEFT
    assert debugged.rig.parked == 1
    assert debugged.rig.uart.accesses == [("write", 0, 1, ord("x"))]


def test_stopped_cpu_parks_again_if_it_was_let_go_for_something_else(half: Half) -> None:
    debugged = Debugged(half, STOP)

    def snapshot_first() -> None:
        if debugged.rig.parked > 2:
            debugged.rig.loop.go_on()
        debugged.rig.loop.unpark()

    debugged.rig.while_parked = snapshot_first
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    assert debugged.rig.play() is LoopEnd.LEFT
    assert debugged.rig.parked == 3


def test_stopped_cpu_leaves_when_it_is_asked_to(half: Half) -> None:
    debugged = Debugged(half, STOP)
    debugged.rig.while_parked = lambda: debugged.rig.loop.request_attention(LEAVE)
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    debugged.rig.port(OUT, 0x3F8, data=b"never")
    assert debugged.rig.loop.run() is LoopEnd.LEFT
    assert debugged.rig.uart.accesses == []


def test_crash_stands_still_and_ends_the_run_then(half: Half) -> None:
    debugged = Debugged(half, CRASH)
    debugged.rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    assert debugged.rig.loop.run() is LoopEnd.DECIDED
    assert debugged.rig.parked == 1
    assert debugged.rig.loop.outcome is not None
    assert debugged.rig.loop.outcome.status == GUEST_CRASHED


def test_crash_that_is_left_in_the_middle_decides_nothing(half: Half) -> None:
    debugged = Debugged(half, CRASH)
    debugged.rig.while_parked = lambda: debugged.rig.loop.request_attention(LEAVE)
    debugged.rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    assert debugged.rig.loop.run() is LoopEnd.LEFT
    assert debugged.rig.loop.outcome is None


def test_exit_that_is_to_be_ignored_does_nothing(half: Half) -> None:
    debugged = Debugged(half, IGNORE)
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    assert debugged.rig.play() is LoopEnd.LEFT
    assert debugged.rig.parked == 0
    assert debugged.asked == [exits.DebugExit(0, 0, 0, 0)]


@pytest.mark.parametrize("is_write", [False, True])
def test_access_to_memory_is_no_business_of_a_debugger(half: Half, is_write: bool) -> None:
    debugged = Debugged(half)
    debugged.rig.memory(0xD000_0000, 1, b"x" if is_write else None)
    assert debugged.rig.play() is LoopEnd.LEFT
    assert len(debugged.rig.mmio_uart.accesses) == 1
