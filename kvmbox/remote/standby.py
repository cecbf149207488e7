"""Device processes in reserve, and the account of those that were lost: `--on-device-crash restart`.

Until it is greeted a device process is of no type. So one that is jailed and waits is a replacement for any,
and it stands ready before it is needed: a restart does not wait for a fork and a jail. The main thread
orders the next one as soon as it hears that one was used; a second loss before that waits for it.

What was lost is told by the main thread: only it may take the time to learn how a process died.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmbox.errors import DeviceGoneError, DeviceProcessError, SandboxError
from kvmbox.remote.links import Link, make_link
from kvmbox.remote.recovery import Recovery, Restart
from kvmbox.remote.spawner_client import DeviceProcess

if TYPE_CHECKING:
    from kvmbox.remote.pool import DevicePool

NAME: Final = "standby"


class StandbyProcesses:
    """Implements `recovery.Standby` for the pool's channels."""

    def __init__(
        self,
        pool: DevicePool,
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
        """How long each restart took, in ns."""
        self.replayed = 0
        self._pool = pool
        self._wake = wake
        self._lock = threading.Lock()
        self._spare: tuple[DeviceProcess, Link] | None = None
        self._lost: deque[tuple[str, DeviceProcess, DeviceProcessError | None]] = deque()
        self._told: deque[Restart] = deque()
        for member in pool.members.values():
            if member.channel is not None:
                Recovery(member.channel, member.devices, self)

    @property
    def spare(self) -> DeviceProcess | None:
        """The process that waits to be used."""
        return self._spare[0] if self._spare is not None else None

    # --- On any thread ------------------------------------------------------------------------------------

    def take_from_budget(self) -> bool:
        """See Standby."""
        with self._lock:
            self.budget -= 1
            return self.budget >= 0

    def replace(self, name: str) -> Link:
        """See Standby. Raises DeviceProcessError where no process can be had."""
        member = self._pool.members[name]
        old = member.process
        assert isinstance(old, DeviceProcess)
        old.kill()
        with self._lock:
            process, link = self._spare or self._ordered()
            self._spare = None
            self._pool.wait_for(process)
            self._lost.append((name, old, member.cause))
            member.process, member.link, member.cause = process, link, None
        if self._pool.spin is not None and member.channel is not None:
            self._pool.spin.replaced(member.channel)
        return link

    def restarted(self, restart: Restart) -> None:
        """See Standby."""
        self._told.append(restart)
        self._wake()

    def _ordered(self) -> tuple[DeviceProcess, Link]:
        link = make_link(self._pool.design.ipc)
        return self._pool.spawn(NAME, link), link

    # --- On the main thread -------------------------------------------------------------------------------

    def tend(self, say: Callable[[str], None]) -> None:
        """Have a process in reserve, and tell of the restarts since the last call."""
        with self._lock:
            if self._spare is not None and self._spare[0].wait_status is not None:
                self._spare[1].close_vmm_end()
                self._spare[0].release()
                self._spare = None
            if self._spare is None and self.budget > 0:
                try:
                    self._spare = self._ordered()
                except SandboxError as error:
                    self.budget = 0
                    say(f"no device process can be had in reserve: {error}")
        while self._told:
            restart = self._told.popleft()
            causes = self._causes(restart.device_type)
            self.restarts[restart.device_type] = self.restarts.get(restart.device_type, 0) + 1
            self.durations.append(restart.duration)
            self.replayed += restart.replayed
            say(
                f"{'; '.join(causes) or restart.error}: restarted, {restart.replayed} requests replayed "
                f"in {restart.duration / 1e6:.1f} ms (restart {sum(self.restarts.values())}, "
                f"{max(0, self.budget)} left)"
            )

    def _causes(self, name: str) -> list[str]:
        """How the processes of `name` that were replaced have died."""
        causes = []
        for _ in range(len(self._lost)):
            lost, process, cause = self._lost.popleft()
            if lost != name:
                self._lost.append((lost, process, cause))
                continue
            causes.append(str(cause or self._pool.explain_process(DeviceGoneError(name, "is gone"), process)))
            process.release()
        return causes

    def close(self) -> None:
        """Close what no channel has taken over. The spawner ends the processes."""
        with self._lock:
            if self._spare is not None:
                self._spare[1].close_vmm_end()
                self._spare = None
