"""What a program asks of a machine: who waits for what, whenever the guest ends."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kvmbox.base.errors import DeviceProcessError, KvmboxError, SnapshotFileError
from kvmbox.run.api.paused_calls import GUEST_ENDED, NoMachineError, Requests
from kvmbox.run.loop.vcpu_pause import VcpuPause
from kvmbox.run.part import Standing

CLOCK: Any = None
"""Nobody here asks for the time."""

HUNG = DeviceProcessError("vga", "is hung")


class Cpu:
    """A vCPU that pauses when the test says so."""

    def __init__(self) -> None:
        self.is_paused = False

    def pause(self) -> None:
        """It is asked, and runs on for a while."""

    def resume(self) -> None:
        self.is_paused = False


class Rig:
    """A machine of one vCPU, whose main loop takes its turns when the test says so."""

    def __init__(self) -> None:
        self.requests = Requests()
        self.called = threading.Semaphore(0)
        self.standstill = VcpuPause(self.called.release)
        self.cpu = Cpu()
        boot: Any = SimpleNamespace(vcpus=[self.cpu])
        self.standstill.begin(boot)
        self.machine: Any = SimpleNamespace(loop=SimpleNamespace(standstill=self.standstill))
        self.looks: list[tuple[str, bool]] = []
        """The name of each call, and whether the vCPU stood still for it."""
        self.fails: dict[str, KvmboxError] = {}
        """What goes wrong at "call begins" or "call ends"."""
        self.answers: dict[str, object] = {}
        """What each thread was given, or was told: by the name of its call."""

    def attach(self) -> None:
        self.requests.attach(self.machine)

    def call(self, name: str) -> Callable[[Standing], Callable[[], str]]:
        """A call that notes itself, and fails as `fails` wants it."""

        def look(machine: Standing) -> Callable[[], str]:
            assert machine is self.machine
            self.looks.append((name, self.cpu.is_paused))
            self.fail(f"{name} begins")
            return finish

        def finish() -> str:
            self.fail(f"{name} ends")
            return f"{name} answered {'at' if self.cpu.is_paused else 'after'} the standstill"

        return look

    def fail(self, step: str) -> None:
        if step in self.fails:
            raise self.fails[step]

    def ask(self, name: str = "screen", *, attached: bool = True) -> threading.Thread:
        """Ask on another thread; returns when the main loop was called for it, if there is a machine."""

        def ask() -> None:
            try:
                self.answers[name] = self.requests.ask(self.call(name))
            except (NoMachineError, KvmboxError) as error:
                self.answers[name] = str(error)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        if attached:
            assert self.called.acquire(timeout=30)
        return thread

    def turn(self) -> None:
        self.cpu.is_paused = True
        self.standstill.turn(CLOCK)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_call_is_made_while_the_machine_stands_still_and_answers_when_it_goes_on(rig: Rig) -> None:
    rig.attach()
    assert not rig.requests.wants
    thread = rig.ask()
    assert rig.requests.wants
    rig.standstill.turn(CLOCK)  # the vCPU has not paused
    assert rig.looks == []
    rig.turn()
    thread.join(30)
    assert rig.looks == [("screen", True)]
    assert rig.answers == {"screen": "screen answered after the standstill"}
    assert not rig.requests.wants


def test_call_before_there_is_a_machine_waits_for_it(rig: Rig) -> None:
    thread = rig.ask(attached=False)
    while not rig.requests.wants:
        assert thread.is_alive()
    rig.attach()
    assert rig.called.acquire(timeout=30)  # the first boot stands still for it
    rig.turn()
    thread.join(30)
    assert rig.answers == {"screen": "screen answered after the standstill"}


def test_machine_that_nobody_asks_does_not_stand_still(rig: Rig) -> None:
    rig.attach()
    assert not rig.called.acquire(blocking=False)
    rig.turn()
    assert (rig.looks, rig.cpu.is_paused) == ([], True)


def test_several_that_wait_are_all_answered_in_one_standstill_in_their_order(rig: Rig) -> None:
    rig.attach()
    threads = [rig.ask(name) for name in ("screen", "clock", "memory")]
    rig.turn()
    for thread in threads:
        thread.join(30)
    assert rig.looks == [("screen", True), ("clock", True), ("memory", True)]
    assert rig.answers == {
        name: f"{name} answered after the standstill" for name in ("screen", "clock", "memory")
    }


def test_call_that_finds_a_process_lost_ends_the_run_and_its_own_wait_with_the_reason(rig: Rig) -> None:
    rig.attach()
    first, second = rig.ask("screen"), rig.ask("clock")
    rig.fails["screen begins"] = HUNG
    with pytest.raises(DeviceProcessError) as caught:
        rig.turn()
    assert caught.value is HUNG
    assert rig.looks == [("screen", True)]
    assert rig.answers == {}  # the run has not ended yet
    rig.requests.end()
    first.join(30)
    second.join(30)
    assert rig.answers == {"screen": str(HUNG), "clock": GUEST_ENDED}
    assert not rig.requests.wants


def test_one_whose_call_was_made_has_its_answer_although_the_next_one_fails(rig: Rig) -> None:
    rig.attach()
    first, second = rig.ask("screen"), rig.ask("clock")
    rig.fails["clock begins"] = HUNG
    with pytest.raises(DeviceProcessError):
        rig.turn()
    first.join(30)
    assert list(rig.answers) == ["screen"]
    assert str(rig.answers["screen"]).startswith("screen answered")
    rig.requests.end()
    second.join(30)
    assert rig.answers["clock"] == str(HUNG)


@pytest.mark.parametrize("step", ["begins", "ends"])
def test_error_of_one_call_is_raised_where_it_was_asked_for_and_the_machine_goes_on(
    rig: Rig, step: str
) -> None:
    rig.attach()
    first, second = rig.ask("snapshot"), rig.ask("clock")
    rig.fails[f"snapshot {step}"] = SnapshotFileError("cannot write it")
    rig.turn()
    for thread in (first, second):
        thread.join(30)
    assert rig.answers == {"snapshot": "cannot write it", "clock": "clock answered after the standstill"}
    assert not rig.requests.wants
    assert not rig.cpu.is_paused


def test_whoever_waits_when_the_guest_ends_is_told_and_so_is_whoever_asks_later(rig: Rig) -> None:
    rig.attach()
    waiting = rig.ask()
    rig.requests.end()
    late = rig.ask("late", attached=False)
    for thread in (waiting, late):
        thread.join(30)
    assert rig.answers == {"screen": GUEST_ENDED, "late": GUEST_ENDED}
    assert not rig.requests.wants
    rig.turn()
    assert rig.looks == []


def test_whoever_waits_for_a_machine_that_never_comes_is_told(rig: Rig) -> None:
    thread = rig.ask(attached=False)
    while not rig.requests.wants:
        assert thread.is_alive()
    rig.requests.end()
    thread.join(30)
    assert rig.answers == {"screen": GUEST_ENDED}
