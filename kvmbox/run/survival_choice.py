"""What becomes of the loss of a device process: `--on-device-crash`, as the channels ask for it.

A process that starts in the midst of the run is no loss, but guest time stands still for it as for a restart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from kvmbox.errors import DeviceProcessError
from kvmbox.host.clock import GuestClock
from kvmbox.remote.pool import DevicePool, SurvivalOf, fails
from kvmbox.run.config import RunConfig


class Unanswered:
    """The losses after which ports read as ones, and that nobody has been told of yet."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` wakes the main thread."""
        self._wake = wake
        self._losses: deque[DeviceProcessError] = deque()

    def add(self, error: DeviceProcessError) -> None:
        """On the thread that found it, which holds the channel: it must not wait for a person to read."""
        self._losses.append(error)
        self._wake()

    def tell(self, pool: DevicePool, say: Callable[[str], None], *, waits: bool = False) -> None:
        """Tell the person, on the main thread. What the spawner has not reported yet is left for later,
        unless `waits`.
        """
        while self._losses and (waits or pool.explains_at_once(self._losses[0])):
            error = self._losses.popleft()
            say(f"{pool.explain(error)}: from now on its ports read as ones")


def survival_of(
    config: RunConfig,
    pool: DevicePool,
    clock: GuestClock,
    rearm: Callable[[], None],
    answered_by_nobody: Callable[[DeviceProcessError], None],
    wake: Callable[[], None],
) -> SurvivalOf:
    """What gives each channel of `pool`, which has been launched, the survival that the run asks for.

    `answered_by_nobody` hears of losses after which ports read as ones; `wake` wakes the main thread;
    `rearm` is called when the clock goes on.
    """

    def resume() -> None:
        clock.resume()
        rearm()

    pool.starts.attend(pause_time=clock.pause, resume_time=resume, wake=wake)
    if config.on_device_crash == "restart":
        from kvmbox.parts.restart.recovery import Recovery
        from kvmbox.parts.restart.standby import StandbyProcesses
        from kvmbox.remote.kinds import journal_kind

        standby = pool.standby = StandbyProcesses(
            pool, budget=config.restart_budget, pause_time=clock.pause, resume_time=resume, wake=wake
        )
        journal = journal_kind()
        return lambda member, process: Recovery(member.devices, standby, process, journal=journal)
    if config.on_device_crash == "all-ones":
        from kvmbox.parts.restart.recovery import AllOnes

        return lambda _member, process: AllOnes(answered_by_nobody, process)
    return fails
