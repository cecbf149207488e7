"""--on-device-crash: lost device processes are restarted, or their ports read as ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.device_spec import Output, StopPanic, StopValue
from kvmbox.parts.restart.recovery import AllOnes
from kvmbox.parts.restart.standby import StandbyProcesses
from kvmbox.remote.process.crash_policy import Forget, LossPolicy, ProcessControl, Say, Survival
from kvmbox.run.options.choices import DEFAULT_RESTART_BUDGET
from kvmbox.run.part import Opening, Part

if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.remote.process.device_pool import DevicePool
    from kvmbox.run.result.run_result import Draft


class Restart(Part):
    """Lost device processes are restarted, `budget` times at most in all."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._standby: StandbyProcesses | None = None

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        opening.loss_policy = self._policy

    def _policy(
        self,
        pool: DevicePool,
        pause_time: Callable[[], None],
        resume_time: Callable[[], None],
        wake: Callable[[], None],
    ) -> LossPolicy:
        self._standby = StandbyProcesses(
            pool, budget=self._budget, pause_time=pause_time, resume_time=resume_time, wake=wake
        )
        return self._standby

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        if self._standby is not None:
            draft.facts["restarts"] = self._standby.facts()


class ReadsAsOnes(Part, LossPolicy):
    """The ports of a lost device process read as ones. With --fail-on, one that prints is not to be lost."""

    def __init__(self) -> None:
        self._pool: DevicePool
        self._wake: Callable[[], None] = lambda: None
        self._losses: deque[DeviceProcessError] = deque()
        self._lost: set[str] = set()

    def open(self, opening: Opening) -> None:
        """See `Part`."""
        opening.loss_policy = self._policy
        self._fails_on = bool(opening.config.fail_on)

    def _policy(self, pool: DevicePool, *calls: Callable[[], None]) -> LossPolicy:
        self._pool, (*_, self._wake) = pool, calls
        return self

    def survival(self, devices: Sequence[DeviceSpec], process: ProcessControl) -> Survival:
        """See LossPolicy."""
        if self._fails_on and any(device.granted(Output) for device in devices):
            return Survival(process)
        judges = [any(isinstance(one, StopValue | StopPanic) for one in device.grants) for device in devices]
        return AllOnes(self._add, process, [index for index, judge in enumerate(judges) if judge])

    def _add(self, error: DeviceProcessError) -> None:
        """On the thread that found it, which holds the channel: it must not wait for a person to read."""
        self._losses.append(error)
        self._lost.add(error.device_type)
        self._wake()

    def report(self, draft: Draft) -> None:
        """See `Part`."""
        draft.facts["restarts"] = {"never": sorted(self._lost)}

    def tend(self, say: Say, forget: Forget) -> bool:
        """See LossPolicy."""
        self.tell(say, forget)
        return False

    def tell(self, say: Say, _forget: Forget, *, waits: bool = False) -> None:
        """See LossPolicy."""
        while self._losses and (waits or self._pool.explains_at_once(self._losses[0])):
            error = self._losses.popleft()
            say(f"{self._pool.explain(error)}: from now on its ports read as ones")


def part(on_device_crash: str, restart_budget: int | None = None) -> Part:
    """What --on-device-crash asks for, if it is not `fail`."""
    if on_device_crash == "restart":
        return Restart(DEFAULT_RESTART_BUDGET if restart_budget is None else restart_budget)
    return ReadsAsOnes()


PART = part
