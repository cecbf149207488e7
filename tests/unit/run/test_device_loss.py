"""The main loop's part in the loss of a device process: nothing is said on the thread that finds the loss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any, cast

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.judge import Judge
from kvmbox.host.process.signals import Wakeup
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.parts.restart.part import PART
from kvmbox.parts.restart.standby import StandbyProcesses
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.process.crash_policy import LossPolicy, ProcessControl
from kvmbox.run.loop.main_loop import MainLoop
from kvmbox.wire import protocol
from tests.support.far_end import FarEnd


class Rig:
    """A main loop whose pool has started no process yet."""

    def __init__(self, answer: str, **options: Any) -> None:
        """`answer` is that of --on-device-crash."""
        self.said: list[str] = []
        self.explained: list[DeviceProcessError] = []
        self.attended: dict[str, Any] = {}
        self.host = 0
        self.clock = GuestClock(lambda: self.host)
        self.own_policy = LossPolicy()
        pool = SimpleNamespace(
            explain=self._explain,
            explains_at_once=lambda _error: False,
            starts=SimpleNamespace(attend=self.attended.update),
            loss_policy=self.own_policy,
            members={},
            channels=[],
        )
        self.pool = cast(Any, pool)
        opening = cast(Any, SimpleNamespace(loss_policy=None, config=SimpleNamespace(fail_on=())))
        if answer != "fail":
            PART(answer, **options).open(opening)
        nothing: Any = SimpleNamespace()
        self.wakeup = Wakeup()
        self.loop = MainLoop(
            *(nothing, Judge(), nothing, self.wakeup, nothing),
            cpu=None,
            started=0,
            say=self.said.append,
        )
        self.loss_policy = opening.loss_policy
        self.loop.prepare(self.loss_policy, self.pool, self.clock)

    def _explain(self, error: DeviceProcessError) -> DeviceProcessError:
        self.explained.append(error)
        return error


@pytest.fixture
def make() -> Iterator[Any]:
    rigs: list[Rig] = []

    def rig(answer: str, **options: Any) -> Rig:
        rigs.append(Rig(answer, **options))
        return rigs[-1]

    yield rig
    for one in rigs:
        one.wakeup.close()


def test_loss_that_ports_read_as_ones_for_is_explained_and_said_by_the_main_thread_alone(make: Any) -> None:
    rig = make("all-ones")
    survival = rig.pool.loss_policy.survival([], ProcessControl())
    far = FarEnd()
    far.close()
    with closing(Channel("rtc", far.link, [], now=lambda: 0, survival=survival)) as channel:
        assert channel.access(protocol.request_word(protocol.READ, 0, 1), 0, 0, 0xFF) == 0xFF
        assert (rig.explained, rig.said) == ([], [])  # who reads stderr slowly does not hold up the channel
        rig.loop.close()
    (line,) = rig.said
    assert line.startswith("device process 'rtc' ")
    assert line.endswith(": from now on its ports read as ones")


def test_policy_of_the_pool_is_its_own_where_nothing_else_was_asked_for(make: Any) -> None:
    rig = make("fail")
    assert rig.pool.loss_policy is rig.own_policy
    rig.loop.close()


def test_restarts_have_the_budget_of_the_option_and_make_guest_time_stand_still(make: Any) -> None:
    rig = make("restart", restart_budget=3)
    policy = rig.pool.loss_policy
    assert isinstance(policy, StandbyProcesses)
    assert policy.budget == 3
    rig.clock.release()
    policy.pause_time()
    rig.host = 1_000
    assert rig.clock.now() == 0
    policy.resume_time()
    rig.host = 1_001
    assert rig.clock.now() == 1
    rig.loop.close()


def test_guest_time_stands_still_and_timers_rest_while_a_process_starts(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make("fail")
    log: list[str] = []
    monkeypatch.setattr(rig.loop, "rearm", lambda: log.append("timers run"))
    monkeypatch.setattr(rig.wakeup, "wake", lambda: log.append("main thread woken"))
    rig.loop.prepare(rig.loss_policy, rig.pool, rig.clock)
    rig.clock.release()
    rig.host = 5
    rig.attended["pause_time"]()
    rig.host = 1_000
    assert rig.clock.now() == 5
    assert log == []
    rig.attended["resume_time"]()
    rig.host = 1_001
    assert rig.clock.now() == 6
    assert log == ["timers run"]
    rig.attended["wake"]()
    assert log == ["timers run", "main thread woken"]
    rig.loop.close()
