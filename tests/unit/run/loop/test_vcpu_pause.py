"""The moments at which all vCPUs stand still: who is asked, who visits, and who goes on."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.run.loop.vcpu_pause import VcpuPause, Visitor

CLOCK = cast(GuestClock, None)
"""No visitor here asks for the time."""


class FakeCpu:
    def __init__(self) -> None:
        self.is_paused = False
        self.log: list[str] = []

    def pause(self) -> None:
        self.log.append("pause")

    def resume(self) -> None:
        self.is_paused = False
        self.log.append("resume")


class Guest(Visitor):
    """A visitor that wants to look so many times."""

    def __init__(self, cpus: list[FakeCpu], wishes: int = 1) -> None:
        self.cpus = cpus
        self.wishes = wishes
        self.held: list[FakeCpu] = []
        self.seen: list[str] = []
        self.in_seconds: float | None = None

    @property
    def wants(self) -> bool:
        return self.wishes > 0

    def wake_in(self, clock: GuestClock) -> float | None:
        return self.in_seconds

    def visit(self) -> Callable[[], None] | None:
        assert all(cpu.is_paused for cpu in self.cpus)
        self.wishes -= 1
        self.seen.append("visit")
        return self.finish

    def holds(self, vcpu: object) -> bool:
        return vcpu in self.held

    def finish(self) -> None:
        paused = [cpu.is_paused for cpu in self.cpus]
        self.seen.append("finish beside paused vCPUs" if any(paused) else "finish")


class Rig:
    def __init__(self) -> None:
        self.woken = 0
        self.standstill = VcpuPause(self.wake)
        self.cpus = [FakeCpu(), FakeCpu()]

    def wake(self) -> None:
        self.woken += 1

    def admit(self, wishes: int = 1) -> Guest:
        guest = Guest(self.cpus, wishes)
        self.standstill.admit(guest)
        return guest

    def all_pause(self) -> None:
        for cpu in self.cpus:
            cpu.is_paused = True

    def begin(self) -> None:
        boot: Any = SimpleNamespace(vcpus=self.cpus)
        self.standstill.begin(boot)

    @property
    def logs(self) -> list[list[str]]:
        return [cpu.log for cpu in self.cpus]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_call_asks_all_to_pause_and_wakes_the_main_loop(rig: Rig) -> None:
    rig.begin()
    rig.standstill.call()
    assert (rig.logs, rig.woken) == ([["pause"], ["pause"]], 1)


def test_visit_waits_for_the_last_vcpu_and_then_all_go_on(rig: Rig) -> None:
    rig.begin()
    visitor = rig.admit()
    rig.cpus[0].is_paused = True
    rig.standstill.turn(CLOCK)
    assert (rig.logs, visitor.seen) == ([[], ["pause"]], [])
    rig.cpus[1].is_paused = True
    rig.standstill.turn(CLOCK)
    assert rig.logs == [["resume"], ["pause", "resume"]]
    assert visitor.seen == ["visit", "finish"]


def test_vcpus_stand_still_while_one_of_the_visitors_wants_more(rig: Rig) -> None:
    rig.begin()
    short, long = rig.admit(), rig.admit(2)
    rig.all_pause()
    rig.standstill.turn(CLOCK)
    assert (short.seen[0], long.seen[0], rig.logs) == ("visit", "visit", [[], []])
    rig.standstill.let_go()
    assert rig.logs == [[], []]
    rig.standstill.turn(CLOCK)
    assert short.seen == ["visit", "finish beside paused vCPUs"]
    assert (long.seen[-1], rig.logs) == ("finish", [["resume"], ["resume"]])


def test_held_vcpu_stands_still_while_the_other_one_goes_on(rig: Rig) -> None:
    rig.begin()
    visitor = rig.admit()
    visitor.held = [rig.cpus[1]]
    rig.all_pause()
    rig.standstill.turn(CLOCK)
    assert rig.logs == [["resume"], []]
    visitor.held = []
    rig.standstill.let_go()
    assert rig.logs[1] == ["resume"]


def test_new_boot_stands_still_before_its_first_instruction_if_that_is_wanted(rig: Rig) -> None:
    rig.admit()
    rig.begin()
    assert rig.logs == [["pause"], ["pause"]]


def test_new_boot_that_nobody_waits_for_is_not_paused(rig: Rig) -> None:
    rig.admit(0)
    rig.begin()
    rig.standstill.turn(CLOCK)
    assert rig.logs == [[], []]


def test_main_loop_wakes_for_the_first_of_the_visitors(rig: Rig) -> None:
    assert rig.standstill.wake_in(CLOCK) is None
    rig.admit().in_seconds = 2.0
    rig.admit().in_seconds = 0.5
    rig.admit()
    assert rig.standstill.wake_in(CLOCK) == 0.5


def test_visitor_that_fails_leaves_no_vcpu_paused_and_those_before_it_finish(rig: Rig) -> None:
    class Failing(Guest):
        def visit(self) -> Callable[[], None] | None:
            self.wishes -= 1
            raise RuntimeError("the device process is gone")

    rig.begin()
    first = rig.admit()
    rig.standstill.admit(Failing(rig.cpus))
    rig.all_pause()
    with pytest.raises(RuntimeError):
        rig.standstill.turn(CLOCK)
    assert rig.logs == [["resume"], ["resume"]]
    assert first.seen == ["visit", "finish"]
