"""What lets out what the guest wrote before an event, so that it is judged first."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kvmbox.base.judge import Judge
from kvmbox.base.outcome import CLEAN, GUEST_CRASHED, Outcome
from kvmbox.run.loop.output_drain import OutputDrain
from kvmbox.run.loop.vcpu_pause import VcpuPause
from kvmbox.run.vcpu.run_state import VcpuControl


class FakeVcpu(VcpuControl):
    def __init__(self) -> None:
        self.paused = False

    @property
    def is_paused(self) -> bool:
        return self.paused

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


class Rig:
    """A machine of one vCPU whose guest shows "ok" on its screen."""

    def __init__(self) -> None:
        self.judge = Judge((b"ok",))
        self.looks = 0
        self.settling = OutputDrain(self.judge, (self.look,))
        self.standstill = VcpuPause(lambda: None)
        self.standstill.admit(self.settling)
        self.vcpu = FakeVcpu()
        boot: Any = SimpleNamespace(vcpus=[self.vcpu])
        self.standstill.begin(boot)
        self.judge.connect(self.standstill.call)

    def look(self) -> None:
        self.looks += 1
        self.judge.look(b"ok")

    def turn(self) -> None:
        self.standstill.turn(None)  # type: ignore[arg-type]  # nobody here looks at the clock


def test_machine_stands_still_while_an_event_is_settled() -> None:
    rig = Rig()
    rig.turn()
    assert (rig.looks, rig.vcpu.paused) == (0, False)
    rig.judge.ends(Outcome(33, "debug-exit"))
    assert rig.vcpu.paused
    assert rig.judge.outcome is None
    rig.turn()
    assert rig.looks == 1
    assert rig.judge.verdict.status == CLEAN


def test_machine_stands_still_until_work_is_done() -> None:
    rig = Rig()
    rig.judge.begin_work()
    rig.judge.ends(Outcome(33, "debug-exit"))
    for _ in range(2):
        rig.turn()
    assert (rig.looks, rig.vcpu.paused, rig.judge.outcome) == (1, True, None)
    rig.judge.end_work()
    assert rig.judge.outcome is not None


def test_event_of_a_machine_that_has_ended_is_settled_all_the_same() -> None:
    rig = Rig()
    rig.settling.end()
    assert rig.looks == 0
    rig.judge.ends(Outcome(GUEST_CRASHED, "triple fault"), gone=True)
    rig.settling.end()
    assert rig.looks == 1
    assert rig.judge.verdict.status == CLEAN
