"""The main loop's part in the loss of a device process: nothing is said on the thread that finds the loss."""

from __future__ import annotations

from contextlib import closing
from types import SimpleNamespace
from typing import Any

from kvmbox.errors import DeviceProcessError
from kvmbox.host.clock import GuestClock
from kvmbox.host.signals import Wakeup
from kvmbox.judge import Judge
from kvmbox.remote.channel import Channel
from kvmbox.remote.survival import ProcessControl
from kvmbox.run.loop import MainLoop
from kvmbox.run.survival_choice import survival_of
from kvmbox.wire import protocol
from tests.support.far_end import FarEnd


def test_loss_that_ports_read_as_ones_for_is_explained_and_said_by_the_main_thread_alone() -> None:
    explained: list[DeviceProcessError] = []
    said: list[str] = []

    def explain(error: DeviceProcessError) -> DeviceProcessError:
        explained.append(error)
        return error

    config: Any = SimpleNamespace(on_device_crash="all-ones")
    starts = SimpleNamespace(attend=lambda **_: None)
    pool: Any = SimpleNamespace(explain=explain, tell_restarts=lambda _say: None, starts=starts)
    nothing: Any = SimpleNamespace()
    with closing(Wakeup()) as wakeup:
        loop = MainLoop(config, Judge(), nothing, wakeup, nothing, cpu=None, started=0, say=said.append)
        survival = loop.prepare(pool, GuestClock())(nothing, ProcessControl())
        far = FarEnd()
        far.close()
        channel = Channel("rtc", far.link, [], now=lambda: 0, survival=survival)
        assert channel.access(protocol.request_word(protocol.READ, 0, 1), 0, 0, 0xFF) == 0xFF
        assert (explained, said) == ([], [])  # whoever reads stderr slowly does not hold up the channel
        loop.close()
        channel.close()
    (line,) = said
    assert line.startswith("device process 'rtc' ")
    assert line.endswith(": from now on its ports read as ones")


def test_guest_time_stands_still_and_timers_rest_while_a_process_starts() -> None:
    attended: dict[str, Any] = {}
    log: list[str] = []
    config: Any = SimpleNamespace(on_device_crash="fail")
    pool: Any = SimpleNamespace(standby=None, starts=SimpleNamespace(attend=attended.update))
    host = [0]
    clock = GuestClock(lambda: host[0])
    clock.release()
    rearm, wake = (lambda: log.append("timers run")), (lambda: log.append("main thread woken"))
    survival_of(config, pool, clock, rearm, lambda _error: None, wake)
    host[0] = 5
    attended["pause_time"]()
    host[0] = 1_000
    assert clock.now() == 5
    assert log == []
    attended["resume_time"]()
    host[0] = 1_001
    assert clock.now() == 6
    assert log == ["timers run"]
    attended["wake"]()
    assert log == ["timers run", "main thread woken"]
