"""Where a guest is that does not end."""

from __future__ import annotations

from typing import Any

from kvmbox.explain.sampler import HALTED, RUNNING, Sample
from kvmbox.kvm import uapi
from kvmbox.parts.crash_report.hang_profile import INTERVAL, SAMPLES, SHOWN, HangProfile
from tests.support.scripted_vcpu import FakeVcpu


class Thread:
    """A vCPU thread that pauses when it is asked, or does not."""

    def __init__(self, *, pauses: bool = True, alive: bool = True, state: int = 0) -> None:
        self.vcpu: Any = FakeVcpu()
        self.vcpu.mp_state = state
        self.in_access = False
        self.is_alive = alive
        self.is_paused = False
        self.pauses = pauses
        self.log: list[str] = []

    def pause(self) -> None:
        self.log.append("pause")
        self.is_paused = self.pauses

    def resume(self) -> None:
        self.log.append("resume")
        self.is_paused = False


def take(*threads: Any) -> HangProfile:
    profile = HangProfile()
    profile.take(threads, pause=lambda _seconds: None)
    return profile


def test_sample_of_a_vcpu_that_pauses() -> None:
    thread = Thread(state=uapi.KVM_MP_STATE_HALTED)
    assert take(thread).samples == {0: [Sample(HALTED, False, True, 0x7C00)]}
    assert thread.log == ["pause", "resume"]


def test_vcpu_that_does_not_pause_is_resumed_and_has_no_sample() -> None:
    thread = Thread(pauses=False)
    assert take(thread).samples == {}
    assert thread.log == ["pause", "resume"]


def test_vcpu_that_has_ended_is_left_alone() -> None:
    thread = Thread(alive=False)
    assert take(thread).samples == {}
    assert thread.log == []


def test_vcpu_whose_registers_cannot_be_read_is_resumed() -> None:
    thread = Thread()
    thread.vcpu.gone = True
    assert take(thread).samples == {}
    assert thread.log == ["pause", "resume"]


def test_places_are_shown_most_often_first_and_not_all() -> None:
    profile = HangProfile()
    profile.samples[1] = [Sample(RUNNING, False, False, pc) for pc in (*range(8), 3, 3)]
    profile.samples[0] = [Sample(HALTED, False, True, 0)]
    lines = profile.lines(lambda pc: f"place {pc}" if pc else "")
    assert lines[0] == "CPU 0, 1 samples in 200 ms:"
    assert lines[1] == "  100 % 0x0, halted, interrupts on"
    assert lines[2:4] == ["CPU 1, 10 samples in 200 ms:", "   30 % place 3, running, interrupts off"]
    assert len(lines) == 3 + SHOWN


def test_vcpus_that_run_are_sampled_over_and_over() -> None:
    thread: Any = Thread()
    slept: list[float] = []
    found = HangProfile.of([thread], pause=slept.append)
    assert found.samples == {0: [Sample(RUNNING, False, True, 0x7C00)] * SAMPLES}
    assert slept == [INTERVAL] * SAMPLES


def test_profile_without_a_running_vcpu_does_not_wait() -> None:
    slept: list[float] = []
    ended: Any = Thread(alive=False)
    assert HangProfile.of([], pause=slept.append).lines(lambda _pc: "") == []
    assert HangProfile.of([ended], pause=slept.append).lines(lambda _pc: "") == []
    assert slept == []
