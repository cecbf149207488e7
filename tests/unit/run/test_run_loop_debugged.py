"""A run loop beside a debugger, who is asked about each rare exit."""

from __future__ import annotations

import pytest

from kvmbox.base.outcome import GUEST_CRASHED
from kvmbox.kvm import exits, uapi
from kvmbox.run.vcpu.run_loop import ExitAction
from kvmbox.run.vcpu.run_state import VcpuState
from tests.support.halves import Half
from tests.support.loop_rig import Rig
from tests.support.scripted_vcpu import OUT


class Debugged:
    """A rig whose debugger gives these answers, and then none."""

    def __init__(self, half: Half, *answers: ExitAction) -> None:
        self.rig = Rig(half)
        self.answers = list(answers)
        self.asked: list[exits.Exit] = []
        self.rig.exit_filter = self.filter_exit
        self.rig.named(None)
        self.rig.while_standing = self.go_on

    def filter_exit(self, found: exits.Exit) -> ExitAction:
        self.asked.append(found)
        return self.answers.pop(0) if self.answers else ExitAction.HANDLE

    def go_on(self) -> None:
        self.rig.control.proceed()
        self.rig.control.resume()


def test_stopped_cpu_stands_still_and_goes_on(half: Half) -> None:
    debugged = Debugged(half, ExitAction.STOP)
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    debugged.rig.port(OUT, 0x3F8, data=b"x")
    assert debugged.rig.play() is None
    assert debugged.rig.standstills == 1
    assert debugged.rig.uart.accesses == [("write", 0, 1, ord("x"))]


def test_stopped_cpu_that_is_let_go_for_something_else_stays_stopped(half: Half) -> None:
    debugged = Debugged(half, ExitAction.STOP)
    control = debugged.rig.control
    seen: list[VcpuState] = []

    def snapshot_first() -> None:
        for request in (control.pause, control.resume, control.proceed, control.resume):
            request()
            seen.append(control.state)

    debugged.rig.while_standing = snapshot_first
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    assert debugged.rig.play() is None
    assert seen == [VcpuState.STOPPED, VcpuState.STOPPED, VcpuState.STANDING, VcpuState.RUNNING]
    assert debugged.rig.standstills == 1


def test_stopped_cpu_leaves_when_it_is_asked_to(half: Half) -> None:
    debugged = Debugged(half, ExitAction.STOP)
    debugged.rig.while_standing = debugged.rig.control.leave
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    debugged.rig.port(OUT, 0x3F8, data=b"never")
    assert debugged.rig.loop.run() is None
    assert debugged.rig.uart.accesses == []


def test_crash_stands_still_and_ends_the_run_then(half: Half) -> None:
    debugged = Debugged(half, ExitAction.CRASH)
    debugged.rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    assert debugged.rig.loop.run() is not None
    assert debugged.rig.standstills == 1
    assert debugged.rig.loop.outcome is not None
    assert debugged.rig.loop.outcome.status == GUEST_CRASHED


def test_crash_that_is_left_in_the_middle_decides_nothing(half: Half) -> None:
    debugged = Debugged(half, ExitAction.CRASH)
    debugged.rig.while_standing = debugged.rig.control.leave
    debugged.rig.reason(uapi.KVM_EXIT_SHUTDOWN)
    assert debugged.rig.loop.run() is None
    assert debugged.rig.loop.outcome is None


def test_exit_that_is_to_be_ignored_does_nothing(half: Half) -> None:
    debugged = Debugged(half, ExitAction.IGNORE)
    debugged.rig.reason(uapi.KVM_EXIT_DEBUG)
    assert debugged.rig.play() is None
    assert debugged.rig.standstills == 0
    assert debugged.asked == [exits.DebugExit(0, 0, 0, 0)]


@pytest.mark.parametrize("is_write", [False, True])
def test_access_to_memory_is_no_business_of_a_debugger(half: Half, is_write: bool) -> None:
    debugged = Debugged(half)
    debugged.rig.memory(0xD000_0000, 1, b"x" if is_write else None)
    assert debugged.rig.play() is None
    assert len(debugged.rig.mmio_uart.accesses) == 1
