"""The states of a vCPU: the table of transitions, and what each request does in each state."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from kvmbox.run.vcpu.run_state import LEAVE, PAUSE, Event, VcpuState
from tests.support.halves import Half

CREATED, RUNNING, STANDING, STOPPED, ENDED = VcpuState

WAYS = {
    CREATED: (),
    RUNNING: (Event.START,),
    STANDING: (Event.START, Event.STAND),
    STOPPED: (Event.START, Event.STOP),
    ENDED: (Event.START, Event.END),
}
"""How a vCPU comes to each state."""

ALLOWED = {
    CREATED: {Event.START: RUNNING},
    RUNNING: {Event.STAND: STANDING, Event.STOP: STOPPED, Event.END: ENDED},
    STANDING: {Event.RESUME: RUNNING, Event.LEAVE: RUNNING, Event.END: ENDED},
    STOPPED: {Event.PROCEED: STANDING, Event.LEAVE: RUNNING, Event.END: ENDED},
    ENDED: {},
}


class Desk:
    """A control in a given state."""

    def __init__(self, half: Half, state: VcpuState) -> None:
        self.kicks = 0
        self.when_notified: Callable[[], None] = lambda: None
        self.control = half.control(self._kick, self._notified)
        for event in WAYS[state]:
            self.control.move(event)
        assert self.control.state is state

    def _kick(self) -> None:
        self.kicks += 1

    def _notified(self) -> None:
        self.when_notified()


@pytest.mark.parametrize(("state", "event"), list(itertools.product(VcpuState, Event)))
def test_each_event_leads_where_the_table_says_or_is_refused(
    half: Half, state: VcpuState, event: Event
) -> None:
    control = Desk(half, state).control
    if event in ALLOWED[state]:
        control.move(event)
        assert control.state is ALLOWED[state][event]
        return
    with pytest.raises(ValueError, match=f"a vCPU that is {state.value} has no event {event.name}"):
        control.move(event)
    assert control.state is state


@pytest.mark.parametrize("state", list(VcpuState))
def test_requests_to_the_vcpu_move_nothing_and_kick_it(half: Half, state: VcpuState) -> None:
    desk = Desk(half, state)
    desk.control.pause()
    assert (desk.control.attention.bits, desk.kicks) == (PAUSE, 1)
    desk.control.leave()
    assert (desk.control.attention.bits, desk.kicks) == (PAUSE | LEAVE, 2)
    desk.control.observe(lambda access: False)
    assert desk.kicks == 2  # the exit that it waits for comes by itself
    assert desk.control.state is state


@pytest.mark.parametrize("state", list(VcpuState))
def test_resume_and_proceed_move_only_the_state_that_they_are_for(half: Half, state: VcpuState) -> None:
    control = Desk(half, state).control
    control.pause()
    control.resume()
    assert control.state is (RUNNING if state is STANDING else state)
    assert control.attention.bits == 0
    control = Desk(half, state).control
    control.proceed()
    assert control.state is (STANDING if state is STOPPED else state)


def test_stop_ends_only_by_both_proceed_and_resume(half: Half) -> None:
    desk = Desk(half, RUNNING)
    seen: list[VcpuState] = []

    def go_on() -> None:
        for request in (desk.control.resume, desk.control.proceed, desk.control.resume):
            seen.append(desk.control.state)
            request()

    desk.when_notified = go_on
    assert not desk.control.stop()
    assert seen == [STOPPED, STOPPED, STANDING]
    assert desk.control.state is RUNNING


@pytest.mark.parametrize("is_stop", [False, True])
def test_vcpu_that_leaves_while_it_stands_still_runs_to_its_end(half: Half, is_stop: bool) -> None:
    desk = Desk(half, RUNNING)
    desk.when_notified = desk.control.leave
    if is_stop:
        assert desk.control.stop()
        assert desk.control.state is RUNNING
    desk.control.pause()
    assert desk.control.obey(None)
    assert desk.control.state is RUNNING
    assert desk.control.attention.bits == 0


def test_vcpu_that_is_to_leave_does_not_stop(half: Half) -> None:
    desk = Desk(half, RUNNING)
    notified: list[VcpuState] = []
    desk.when_notified = lambda: notified.append(desk.control.state)
    desk.control.leave()
    assert desk.control.stop()
    assert notified == []


def test_exit_is_complete_before_the_vcpu_stands(half: Half) -> None:
    desk = Desk(half, RUNNING)
    settled: list[VcpuState] = []
    desk.when_notified = desk.control.resume
    desk.control.pause()
    assert not desk.control.obey(lambda: settled.append(desk.control.state))
    assert settled == [RUNNING]
    assert (desk.control.in_access, desk.control.announces_exit) == (True, False)
    assert not desk.control.obey(None)
    assert (desk.control.in_access, desk.control.announces_exit) == (False, True)
