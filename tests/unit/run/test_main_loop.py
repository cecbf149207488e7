"""The end of a boot: the first decisive event wins, and nothing is unmapped under a vCPU thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest

from kvmbox.base.errors import DeviceProcessError, KvmboxError, UnknownExitError
from kvmbox.base.judge import Judge
from kvmbox.base.outcome import CLEAN, DEVICE_FAILED, GUEST_CRASHED, TIMED_OUT, UNKNOWN_EXIT, Outcome
from kvmbox.host.console.serial_ports import Console
from kvmbox.host.process.signals import Wakeup
from kvmbox.host.time.deadline_timer import Timerfd
from kvmbox.remote.process.crash_policy import LossPolicy
from kvmbox.run.frontend import Caller
from kvmbox.run.loop import main_loop as module
from kvmbox.run.loop.main_loop import MainLoop
from kvmbox.run.loop.vcpu_pause import Visitor
from kvmbox.run.machine.device_set import Devices
from kvmbox.run.machine.guest_vm import GuestVm
from kvmbox.run.machine.one_boot import Boot
from kvmbox.run.machine.suspend import Suspension
from kvmbox.run.vcpu.late_writes import LateWrites
from kvmbox.run.vcpu.run_loop import ExitAction
from kvmbox.run.vcpu.run_state import Attention

CRASH = Outcome(GUEST_CRASHED, "the guest crashed: triple fault", error=True)
SHUTDOWN = Outcome(CLEAN, "the guest shut down")


class FakeThread:
    """A vCPU thread whose loop ends when the test says so: at its start, when it is joined, or never."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.outcome: Outcome | None = None
        """What the loop decides when it ends."""
        self.decide: Callable[[Outcome], object] = lambda outcome: None
        self.loop: object = None
        self.announces_exit = False
        self.error: BaseException | None = None
        self.is_alive = False
        self.ended: Callable[[Any], None] = lambda thread: None
        self.at_start: Callable[[], None] = lambda: None
        self.ends_when_asked = True
        self.starved = 0
        """How often it is still seen starved. After that it ends when it is asked."""
        self._log = log
        self._asked = False

    def start(self) -> None:
        self.is_alive = True
        self.at_start()

    def end(self, error: BaseException | None = None) -> None:
        self.error = error
        self.is_alive = False
        if self.outcome is not None:
            self.decide(self.outcome)
        self.ended(self)

    def leave(self) -> None:
        self._log.append(f"{self.name} leaves")
        self._asked = True

    def join(self, seconds: float) -> bool:
        if self.is_alive and self._asked and self.ends_when_asked:
            self._log.append(f"{self.name} has left")
            self.end(self.error)
        return not self.is_alive

    def starvation(self) -> Any:
        def is_starved() -> bool:
            self.starved -= 1
            self.ends_when_asked = self.ends_when_asked or self.starved == 0
            return self.starved >= 0

        return SimpleNamespace(is_starved=is_starved)


class FakeLoop:
    """The loop of a vCPU that makes no exits."""

    attention_kind = Attention
    filters: ClassVar[list[Any]] = []
    """What each loop asks about its rare exits."""

    def __init__(self, *_: object, exit_filter: Any, **__: object) -> None:
        self.routes = SimpleNamespace(guest_exits=0)
        self.filters.append(exit_filter)


class FakeConsole:
    def __init__(self, log: list[str]) -> None:
        self.inputs: list[Any] = []
        self.congested = False
        self._log = log

    def wake_waiters(self) -> None:
        self._log.append("no vCPU may wait for room")

    def may_wait(self) -> None:
        self._log.append("vCPUs may wait for room")

    def tick(self) -> bool:
        return False


class Rig:
    def summon(self, outcome: Outcome) -> None:
        assert outcome is self.decision.outcome
        self.log.append("summoned")
        if self.summoned is not None:
            self.main_loop.standstill.admit(self.summoned)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.said: list[str] = []
        self.summoned: Visitor | None = None
        """Who is admitted when the guest comes to its end."""
        self.decision = Judge()
        self.wakeup = Wakeup()
        self.threads = [FakeThread("vCPU 0", self.log), FakeThread("vCPU 1", self.log)]
        self.config = SimpleNamespace(no_reboot=False, timeout=None)
        self.main_loop = MainLoop(
            cast(Any, self.config),
            self.decision,
            cast(Console, FakeConsole(self.log)),
            self.wakeup,
            cast(Caller, SimpleNamespace(ended_by=None)),
            cpu=None,
            started=0,
            summon=self.summon,
            say=self.said.append,
        )
        pool = SimpleNamespace(
            channels=[],
            members={},
            spawner=None,
            starts=SimpleNamespace(attend=lambda **_: None),
            watch=lambda poll: None,
            tend=lambda poll, say: None,
            loss_policy=LossPolicy(),
            explain=lambda error: error,
        )
        clock = SimpleNamespace(
            lend=lambda _: False,
            release=lambda: self.log.append("clock runs"),
            hold=lambda: self.log.append("clock stands"),
            pause=lambda: None,
        )
        router = SimpleNamespace(rearm=lambda: None, assert_again=lambda _line: None, step_aside=lambda: None)
        self.devices = SimpleNamespace(
            pool=pool,
            clock=clock,
            ports=None,
            mmio=None,
            transfers=None,
            complete_transfers=lambda: None,
            late=LateWrites(),
            router=router,
        )
        self.lent: list[int] = []
        self.is_late = False
        self.armed = 0
        """How often the timers were armed anew."""
        timer = Timerfd()
        timers = SimpleNamespace(
            rearm=self._rearm, due=list, lend=self._lend, descriptor=timer.descriptor, close=timer.close
        )
        monkeypatch.setattr(module, "DeadlineTimer", lambda clock, timerfd: timers)
        self.main_loop.prepare(None, cast(Any, pool), cast(Any, clock))
        self.main_loop.take_devices(cast(Devices, self.devices))
        monkeypatch.setattr(module, "loop_kind", lambda: FakeLoop)
        monkeypatch.setattr(module, "VcpuThread", self._thread_of)
        monkeypatch.setattr(self.main_loop.totals, "add", lambda loops: None)

    def _lend(self, nanoseconds: int) -> bool:
        self.lent.append(nanoseconds)
        return self.is_late

    def _rearm(self) -> None:
        self.armed += 1

    def _thread_of(
        self, vcpu: Any, _attention: object, *, ended: Callable[[Any], None], **_: object
    ) -> FakeThread:
        thread: FakeThread = self.threads[vcpu.index]
        thread.decide, thread.ended = self.decision.decide, ended
        return thread

    def run(self, ring: object = None) -> bool:
        guest = SimpleNamespace(
            boot=SimpleNamespace(format="real"),
            coalesce=lambda devices, room: ring,
            memory=SimpleNamespace(byte_at=lambda address: None),
            vcpus=[SimpleNamespace(index=index) for index in range(2)],
            is_pvm=False,
        )
        return self.main_loop.run_until_reset(cast(GuestVm, guest))


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    rig = Rig(monkeypatch)
    yield rig
    rig.main_loop.close()
    rig.wakeup.close()


def test_end_of_one_vcpu_decides_before_the_other_is_made_to_leave(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = rig.threads
    second.at_start = lambda: second.end(UnknownExitError("KVM_RUN failed: planted"))
    seen: list[Outcome | None] = []
    leave = first.leave

    def note_and_leave() -> None:
        seen.append(rig.decision.outcome)
        leave()

    monkeypatch.setattr(first, "leave", note_and_leave)
    assert rig.run() is False
    assert seen[0] is not None
    assert (seen[0].status, seen[0].reason) == (UNKNOWN_EXIT, "KVM_RUN failed: planted")


def test_end_is_not_lost_where_the_other_vcpu_never_leaves(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.main_loop.standstill.admit(Seen(rig))
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    first, second = rig.threads
    first.ends_when_asked = False
    second.outcome = CRASH
    second.at_start = second.end
    assert rig.run() is False
    assert rig.decision.outcome is CRASH
    assert rig.said == ["after the end of the run: a vCPU thread does not end: KVM_RUN ignores the kick"]
    assert rig.main_loop.has_live_vcpu
    assert "summoned" not in rig.log  # its state is in use
    assert rig.log[-1] == "boot ends"


def test_vcpu_that_the_host_gives_no_cpu_is_waited_for(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    first, second = rig.threads
    first.ends_when_asked = False
    first.starved = 3  # it leaves when it was seen starved three times
    second.outcome = CRASH
    second.at_start = second.end
    assert rig.run() is False
    assert rig.decision.outcome is CRASH
    assert rig.said == []
    assert not rig.main_loop.has_live_vcpu


def test_vcpu_that_is_starved_for_ever_is_given_up(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    first, second = rig.threads
    first.ends_when_asked = False
    first.starved = module.STARVED_TRIES + 2
    second.outcome = CRASH
    second.at_start = second.end
    assert rig.run() is False
    assert rig.said == ["after the end of the run: a vCPU thread does not end: KVM_RUN ignores the kick"]


def test_process_that_is_about_to_start_gets_time_before_it_is_killed_to_end_a_vcpu(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    first, second = rig.threads
    first.ends_when_asked = False
    second.outcome = CRASH
    second.at_start = second.end
    starting = SimpleNamespace(waiting=0, device_type="pm", survival=SimpleNamespace(being_connected=True))
    rig.devices.pool.channels = [starting]
    joins = [0]
    join = first.join

    def count_and_join(seconds: float) -> bool:
        joins[0] += 1
        return join(seconds)

    def kill(name: str) -> None:
        rig.log.append(f"{name} killed after {joins[0]} joins")
        if joins[0] == module.JOIN_TRIES:
            first.end()

    monkeypatch.setattr(first, "join", count_and_join)
    rig.devices.pool.kill = kill
    assert rig.run() is False
    assert rig.said == []
    # Twice: at the second time a spawner that hangs is killed.
    assert [line for line in rig.log if "killed" in line] == [
        "pm killed after 3 joins",
        "pm killed after 4 joins",
    ]


def test_process_that_has_not_started_is_not_probed(rig: Rig) -> None:
    asked: list[str] = []
    channels = {
        name: SimpleNamespace(
            waiting=0,
            device_type=name,
            is_started=name == "uart",
            request=lambda kind, name=name: asked.append(name),
        )
        for name in ("uart", "pm")
    }
    rig.devices.pool.channels = list(channels.values())
    rig.devices.pool.channel = channels.__getitem__
    assert rig.main_loop.watch.check(1_000) is None
    assert asked == ["uart"]


def test_crashed_guest_is_shown_once_its_vcpus_have_left(rig: Rig) -> None:
    rig.main_loop.standstill.admit(Seen(rig))
    _, second = rig.threads
    second.outcome = CRASH
    second.at_start = second.end
    assert rig.run() is False
    assert rig.log.index(f"boot ends: {CRASH.reason}") > rig.log.index("vCPU 0 has left")


def test_vcpu_that_never_leaves_a_reset_is_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "JOIN_SECONDS", 0.0)
    first, second = rig.threads
    first.ends_when_asked = False

    def reset() -> None:
        rig.main_loop.ends.reset_requested()
        second.end()

    second.at_start = reset
    with pytest.raises(KvmboxError, match="does not end"):
        rig.run()


def test_reset_lets_no_vcpu_wait_for_room_until_the_next_boot(rig: Rig) -> None:
    first, second = rig.threads

    def reset() -> None:
        rig.main_loop.ends.reset_requested()
        first.end()

    second.at_start = reset
    assert rig.run() is True
    assert rig.log[:3] == ["vCPUs may wait for room", "clock runs", "no vCPU may wait for room"]


def test_no_ring_is_flushed_behind_a_boot_that_was_ended_before_its_vcpus_ran(rig: Rig) -> None:
    flushed: list[bool] = []

    def flush() -> bool:
        flushed.append(True)
        return True

    rig.decision.decide(Outcome(CLEAN, "stopped by the program"))
    assert not rig.run(ring=SimpleNamespace(flush=flush))
    assert not rig.main_loop.watch.flush_writes()  # its page is unmapped
    assert flushed == []


def test_late_error_is_told_and_does_not_replace_the_outcome(rig: Rig) -> None:
    first, second = rig.threads
    first.error = ValueError("a defect of kvmbox")
    second.outcome = SHUTDOWN
    second.at_start = second.end
    assert rig.run() is False
    assert rig.decision.outcome is SHUTDOWN
    assert rig.said == ["after the end of the run: a defect of kvmbox"]


def test_error_that_comes_first_is_raised_although_another_vcpu_has_an_outcome(rig: Rig) -> None:
    first, second = rig.threads
    defect = ValueError("a defect of kvmbox")
    first.outcome = SHUTDOWN
    second.at_start = lambda: second.end(defect)
    with pytest.raises(ValueError, match="a defect") as caught:
        rig.run()
    assert caught.value is defect
    assert rig.said == []


def test_error_of_a_vcpu_that_leaves_for_a_reset_still_ends_the_run(rig: Rig) -> None:
    first, second = rig.threads
    first.error = DeviceProcessError("rtc", "is gone")

    def reset() -> None:
        rig.main_loop.ends.reset_requested()
        second.end()

    second.at_start = reset
    assert rig.run() is False
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == DEVICE_FAILED


def test_vcpu_thread_that_cannot_start_ends_those_that_run(rig: Rig) -> None:
    first, second = rig.threads

    def fail() -> None:
        second.is_alive = False
        raise KvmboxError("cannot start the thread of vCPU 1")

    second.at_start = fail
    with pytest.raises(KvmboxError, match="vCPU 1"):
        rig.run()
    assert not first.is_alive
    assert not rig.main_loop.has_live_vcpu
    assert rig.log[-1] == "clock stands"


def test_suspension_ends_the_boot_and_says_who_asked(rig: Rig) -> None:
    first, second = rig.threads

    def suspend() -> None:
        rig.main_loop.ends.suspend_requested("PM", 1)
        first.end()

    second.at_start = suspend
    assert rig.run() is True
    assert rig.main_loop.ends.suspension == Suspension("PM", 1)
    assert not rig.main_loop.has_live_vcpu
    assert rig.log[-1] == "clock stands"


def test_reset_beside_a_suspension_is_a_reset(rig: Rig) -> None:
    first, second = rig.threads
    first.at_start = lambda: rig.main_loop.ends.suspend_requested("PM", 1)

    def reset() -> None:
        rig.main_loop.ends.reset_requested()
        second.end()

    second.at_start = reset
    assert rig.run() is True
    assert rig.main_loop.ends.suspension is None


def test_suspension_is_forgotten_at_the_next_boot(rig: Rig) -> None:
    rig.main_loop.ends.suspend_requested("PM", 1)
    first, second = rig.threads
    first.outcome = SHUTDOWN
    second.at_start = first.end
    assert rig.run() is False
    assert rig.main_loop.ends.suspension is None


def test_sleep_lets_time_pass_until_the_machine_is_woken(rig: Rig) -> None:
    polls = []

    def woken() -> bool:
        polls.append(rig.log[-1])
        rig.wakeup.wake()
        return len(polls) == 3

    assert rig.main_loop.sleep(woken) is True
    assert polls == ["clock runs"] * 3
    assert rig.log[-1] == "clock stands"


def test_guest_time_is_lent_for_each_sleep_of_the_main_thread(rig: Rig) -> None:
    polls = []

    def woken() -> bool:
        polls.append(rig.lent[-1])
        rig.wakeup.wake()
        return len(polls) == 3

    assert rig.main_loop.sleep(woken) is True
    assert polls == [0, 0, 0]  # the work needs none but the lenience
    before, *turns = rig.lent
    assert before == 0
    assert len(turns) == 2 * 2  # for each sleep, and when it is over
    assert all(sleep <= 200_000_000 for sleep in turns)


def test_timers_are_armed_anew_when_guest_time_has_stood_still_for_a_late_main_thread(rig: Rig) -> None:
    armed: list[int] = []

    def woken() -> bool:
        rig.is_late = len(armed) == 1
        armed.append(rig.armed)
        rig.wakeup.wake()
        return len(armed) == 3

    assert rig.main_loop.sleep(woken) is True
    first, second, third = armed
    assert (second - first, third - second) == (0, 2)  # before the sleep, and after


def test_sleep_ends_with_the_decision(rig: Rig) -> None:
    def never() -> bool:
        rig.decision.decide(SHUTDOWN)
        return False

    assert rig.main_loop.sleep(never) is False
    assert rig.log[-1] == "clock stands"


class Seen(Visitor):
    """A visitor that writes what it is told of into the log of the rig."""

    def __init__(self, rig: Rig, *, stood_ns: int = 0) -> None:
        self.rig = rig
        self.stood = stood_ns
        self.outcome_at_time_out: Outcome | None = None

    @property
    def stood_ns(self) -> int:
        return self.stood

    def boot_begins(self, boot: Boot) -> None:
        vcpus: list[Any] = list(boot.vcpus)
        assert vcpus == self.rig.threads
        self.rig.log.append("boot begins")

    def boot_ends(self, boot: Boot, end: Outcome | None) -> None:
        self.rig.log.append("boot ends" if end is None else f"boot ends: {end.reason}")

    def timed_out(self, boot: Boot) -> None:
        assert all(thread.is_alive for thread in boot.vcpus)
        self.outcome_at_time_out = self.rig.decision.outcome
        self.rig.log.append("timed out")


@pytest.mark.parametrize(("stood", "status"), [(0, TIMED_OUT), (1 << 62, CLEAN)])
def test_time_for_which_a_visitor_held_the_guest_does_not_count(rig: Rig, stood: int, status: int) -> None:
    rig.main_loop.standstill.admit(Seen(rig, stood_ns=stood))
    rig.config.timeout = 0.001  # since the host has booted
    second = rig.threads[1]
    second.outcome = SHUTDOWN
    second.at_start = second.end
    assert rig.run() is False
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == status
    if status == CLEAN:
        assert rig.log.index("boot ends: the guest shut down") > rig.log.index("vCPU 0 has left")
        assert rig.log.index("boot begins") < rig.log.index("clock runs")


def test_time_out_decides_before_visitors_look_and_vcpus_leave_only_after_that(rig: Rig) -> None:
    visitor = Seen(rig)
    rig.main_loop.standstill.admit(visitor)

    def let_time_run_out() -> None:
        rig.config.timeout = 0.001  # since the host has booted

    rig.threads[1].at_start = let_time_run_out
    assert rig.run() is False
    assert visitor.outcome_at_time_out is rig.decision.outcome
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == TIMED_OUT
    assert rig.log.count("timed out") == 1
    at = rig.log.index("timed out")
    assert rig.log.index("vCPU 0 leaves") > at
    assert rig.log.index("summoned") < at  # who is wanted at such an end only sees the time-out, too


def test_time_out_of_a_guest_whose_end_is_decided_is_no_time_out(rig: Rig) -> None:
    visitor = Seen(rig)
    rig.main_loop.standstill.admit(visitor)

    def end() -> None:
        rig.decision.decide(SHUTDOWN)
        rig.config.timeout = 0.001

    rig.threads[1].at_start = end
    assert rig.run() is False
    assert rig.decision.outcome is SHUTDOWN
    assert "timed out" not in rig.log


def test_time_out_without_a_boot_shows_nobody_anything(rig: Rig) -> None:
    rig.main_loop.standstill.admit(Seen(rig))
    rig.config.timeout = 0.001
    assert rig.main_loop.sleep(lambda: False) is False
    assert rig.decision.outcome is not None
    assert rig.decision.outcome.status == TIMED_OUT
    assert "timed out" not in rig.log


def test_visitor_that_is_summoned_at_the_end_sees_the_end(rig: Rig) -> None:
    rig.summoned = Seen(rig)
    second = rig.threads[1]
    second.outcome = CRASH
    second.at_start = second.end
    assert rig.run() is False
    assert rig.log[-2:] == ["summoned", f"boot ends: {CRASH.reason}"]


def test_visitor_is_not_shown_the_vcpus_of_a_boot_that_was_reset(rig: Rig) -> None:
    rig.main_loop.standstill.admit(Seen(rig))
    first, second = rig.threads

    def reset() -> None:
        rig.main_loop.ends.reset_requested()
        first.end()

    second.at_start = reset
    assert rig.run() is True
    assert rig.log[-1] == "boot ends"
    assert "summoned" not in rig.log


@pytest.fixture
def filters(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the run loop of each vCPU asks about its rare exits, once the rig has run."""
    monkeypatch.setattr(FakeLoop, "filters", [])
    second = rig.threads[1]
    second.outcome, second.at_start = SHUTDOWN, second.end
    return FakeLoop.filters


def test_rare_exits_of_each_vcpu_are_shown_to_the_filter_with_its_number(
    rig: Rig, filters: list[Any]
) -> None:
    asked: list[tuple[int, object]] = []

    def filter_exit(number: int, found: object) -> ExitAction:
        asked.append((number, found))
        return ExitAction.STOP

    rig.main_loop.exit_filter = filter_exit
    assert rig.run() is False
    assert [one("an exit") for one in filters] == 2 * [ExitAction.STOP]
    assert asked == [(0, "an exit"), (1, "an exit")]


def test_filter_of_rare_exits_may_come_while_the_guest_runs(rig: Rig, filters: list[Any]) -> None:
    assert rig.run() is False
    assert [one("an exit") for one in filters] == [None, None]
    rig.main_loop.exit_filter = lambda number, found: ExitAction.IGNORE
    assert [one("an exit") for one in filters] == 2 * [ExitAction.IGNORE]
