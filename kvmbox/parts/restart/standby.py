"""Standby device processes, and the reports of restarts: `--on-device-crash restart`.

A device process has no type before it gets HELLO. So a standby process, which is already jailed, can replace
any other process, and a restart does not wait for a fork and a jail. The main thread requests the next
standby process when one was used. A second loss before that time waits for the new process.

The main thread reports the losses, because only the main thread may take the time to find out how a process
died.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, SandboxError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.parts.restart.recovery import SAMPLE, Recovery, Restart
from kvmbox.remote.channel.implementations import journal_kind
from kvmbox.remote.process.crash_policy import LossPolicy, ProcessControl, Survival
from kvmbox.remote.process.spawner_client import DeviceProcess
from kvmbox.remote.transport.interface import Link

NAME: Final = "standby"

MOST_UNBORN: Final = 3
"""How many standby processes in a row may die before they are jailed. Another one would do the same."""


class Member(Protocol):
    """One process of the machine, as far as it can be replaced: see `pool.PoolMember`."""

    process: Any
    link: Link | None

    @property
    def cause(self) -> DeviceProcessError | None:
        """Why the present process is being killed, if that is known."""


class Processes(Protocol):
    """All processes of the machine, where replacements are ordered: see `pool.DevicePool`."""

    @property
    def members(self) -> Mapping[str, Member]:
        """By name."""

    def make_link(self) -> Link:
        """A link as the machine's design wants it."""

    def spawn(self, name: str, link: Link) -> DeviceProcess:
        """Ask for one more process."""

    def wait_for(self, process: DeviceProcess) -> None:
        """Wait until it is jailed."""

    def explain_process(self, error: DeviceProcessError, process: DeviceProcess) -> DeviceProcessError:
        """The error with its cause."""

    def knows_end(self, error: DeviceProcessError, process: DeviceProcess) -> bool:
        """Whether `explain_process` does not wait for the spawner."""


class StandbyProcesses(LossPolicy):
    """Implements `recovery.Standby` for the pool's channels."""

    def __init__(
        self,
        pool: Processes,
        *,
        budget: int,
        pause_time: Callable[[], None],
        resume_time: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        """`wake` makes the main thread call `tend`. `budget` is how many restarts there may be in all."""
        self.pause_time = pause_time
        self.resume_time = resume_time
        self.budget = budget
        self.restarts: dict[str, int] = {}
        """How often each process was restarted."""
        self.durations: list[int] = []
        """How long each of the first restarts took, in ns."""
        self.replayed = 0
        """How many requests were replayed, in all."""
        self._pool = pool
        self._wake = wake
        self._lock = threading.Lock()
        self._spare: tuple[DeviceProcess, Link] | None = None
        self._lost: dict[str, deque[tuple[DeviceProcess, DeviceProcessError]]] = {
            name: deque() for name in pool.members
        }
        self._unreported: deque[Restart] = deque()
        self._number = 0
        self._unborn = 0  # how many standby processes in a row have died before they were jailed

    @property
    def spare(self) -> DeviceProcess | None:
        """The standby process, if there is one."""
        spare = self._spare
        return spare[0] if spare is not None else None

    # --- On any thread ------------------------------------------------------------------------------------

    def take_from_budget(self) -> bool:
        """See Standby."""
        with self._lock:
            if self.budget == 0:
                return False
            self.budget -= 1
            return True

    def replace(self, name: str, error: DeviceProcessError) -> Link:
        """See Standby."""
        member = self._pool.members[name]
        old = member.process
        assert isinstance(old, DeviceProcess)
        old.kill()
        with self._lock:
            process, link = self._spare or self._ordered()
            self._spare = None
        try:
            self._pool.wait_for(process)
        except SandboxError:
            link.close_vmm_end()
            raise
        # Whoever had it killed knows better than the end of a channel what was wrong with it.
        known = member.cause if isinstance(error, DeviceGoneError) else None
        self._lost[name].append((old, known or error))
        member.process, member.link = process, link
        return link

    def restarted(self, restart: Restart) -> None:
        """See Standby."""
        with self._lock:
            self.restarts[restart.device_type] = self.restarts.get(restart.device_type, 0) + 1
            self.replayed += restart.replayed
            if len(self.durations) < SAMPLE:
                self.durations.append(restart.duration)
        self._unreported.append(restart)
        self._wake()

    def _ordered(self) -> tuple[DeviceProcess, Link]:
        link = self._pool.make_link()
        return self._pool.spawn(NAME, link), link

    # --- On the main thread -------------------------------------------------------------------------------

    def survival(self, devices: Sequence[DeviceSpec], process: ProcessControl) -> Survival:
        """See LossPolicy."""
        return Recovery(devices, self, process, journal=journal_kind())

    def tend(self, say: Callable[[str], None], forget: Callable[[int], None]) -> bool:
        """Request a standby process if there is none, and report the restarts since the last call.

        `forget` hears of each descriptor that `DevicePool.watch` gave to a poll, before it is closed.
        """
        with self._lock:
            spare = self._spare
            if spare is not None and spare[0].wait_status is not None:
                spare[1].close_vmm_end()
                _release(spare[0], forget)
                self._unborn = 0 if spare[0].ready else self._unborn + 1
                if self._unborn == MOST_UNBORN:
                    how = f"{MOST_UNBORN} in a row {spare[0].end()}"
                    say(f"no further standby device process is started: {how}")
                spare = self._spare = None
            if spare is None and self.budget > 0 and self._unborn < MOST_UNBORN:
                try:
                    self._spare = self._ordered()
                except SandboxError as error:
                    self.budget = 0
                    say(f"cannot start a standby device process: {error}")
        self.tell(say, forget)
        return True

    def tell(self, say: Callable[[str], None], forget: Callable[[int], None], *, waits: bool = False) -> None:
        """A line for each restart since the last call; `forget` as in `tend`. Those whose cause the spawner
        has not reported yet are left for later, unless `waits`: a slow spawner must not keep the main thread.
        """
        while self._unreported:
            restart = self._unreported[0]
            lost = list(self._lost[restart.device_type])[: restart.used]
            if not waits and not all(self._pool.knows_end(error, process) for process, error in lost):
                return
            self._unreported.popleft()
            self._number += 1
            causes = []
            # Those that were to replace it and did not live to do so were lost after it.
            for _ in range(restart.used):
                process, error = self._lost[restart.device_type].popleft()
                causes.append(str(self._pool.explain_process(error, process)))
                _release(process, forget)
            say(
                f"{'; its replacement: '.join(causes)}: restarted, {restart.replayed} requests replayed in "
                f"{restart.duration / 1e6:.1f} ms (restart {self._number}, {self.budget} left)"
            )

    def facts(self) -> dict[str, Any]:
        """How often which process was restarted, and how long each restart took, in ns."""
        return {
            "by_type": dict(self.restarts),
            "durations": list(self.durations),
            "replayed": self.replayed,
            "budget": self.budget,
        }

    def close(self) -> None:
        """Close what no channel has taken over. The spawner ends the processes."""
        with self._lock:
            if self._spare is not None:
                self._spare[1].close_vmm_end()
                self._spare = None


def _release(process: DeviceProcess, forget: Callable[[int], None]) -> None:
    # A number that is closed and still watched would be watched in whatever gets it next.
    if process.listener is not None:
        forget(process.listener.fileno())
    process.release()
