"""--profile: the vCPUs are sampled at a rate.

The main loop's turn asks for a standstill when a sample is due (`standstill`). If all vCPUs stand still, each
gives one sample. If a vCPU does not pause within `PATIENCE`, because it waits for a device process or for a
reader of its output, the others give theirs and go on; that vCPU counts as waiting for a device. Next time
the others wait for that vCPU alone no longer than `IMPATIENCE`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.base.outcome import Outcome
from kvmbox.explain.sampler import ACCESSING, sample
from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.parts.profile.samples import USER, WIDE, Samples, with_top
from kvmbox.run.loop.vcpu_pause import VcpuPause, Visitor
from kvmbox.run.machine.one_boot import Boot
from kvmbox.run.vcpu.handle import VcpuThread

PATIENCE: Final = 0.05
"""How many seconds the vCPUs that have paused wait for those that have not."""

IMPATIENCE: Final = 0.005
"""The same, if those had not paused for the last sample, either."""


class Profiler(Visitor):
    """Takes the samples of all boots of a run."""

    def __init__(
        self,
        standstill: VcpuPause,
        rate: int,
        code: Sequence[range] = (),
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`rate` is in samples a second. Return addresses are in `code`. `now` gives seconds."""
        self._code = code
        self.samples: Final = Samples()
        self._standstill = standstill
        self._boot: Boot | None = None
        self._interval = 1 / rate
        self._now = now
        self._next = now() + self._interval
        self._wants_since: float | None = None
        self._slow: set[VcpuThread] = set()
        """Those that had not paused when the last sample was taken."""

    @property
    def wants(self) -> bool:
        """See Visitor."""
        return self._wants_since is not None

    def boot_begins(self, boot: Boot) -> None:
        """See Visitor."""
        self._boot = boot

    def boot_ends(self, _boot: Boot, _end: Outcome | None) -> None:
        """See Visitor."""
        self._boot = None

    def tick(self, _clock: GuestClock) -> None:
        """See Visitor."""
        now = self._now()
        if self._wants_since is None:
            if now >= self._next:
                self._wants_since = now
        elif now >= self._wants_since + self._patience():
            self._take()
            self._standstill.let_go()

    def wake_in(self, _clock: GuestClock) -> float | None:
        """See Visitor."""
        due = self._next if self._wants_since is None else self._wants_since + self._patience()
        return max(0.0, due - self._now())

    def visit(self) -> None:
        """See Visitor."""
        self._take()

    def _patience(self) -> float:
        return IMPATIENCE if self._slow and self._moving() <= self._slow else PATIENCE

    def _moving(self) -> set[VcpuThread]:
        return set() if self._boot is None else {one for one in self._boot.vcpus if not one.is_paused}

    def _take(self) -> None:
        self._wants_since = None
        self._slow = self._moving()
        boot = self._boot
        # A vCPU that another visitor holds is where that one wants it.
        if boot is not None and not self._standstill.is_held:
            for thread in boot.vcpus:
                self._sample(thread, boot.guest.memory.available)
        # From now on: a host that is late misses samples, and does not take them in a burst.
        self._next = self._now() + self._interval

    def _sample(self, thread: VcpuThread, read: Callable[[int, int], bytes]) -> None:
        number = thread.vcpu.index
        if not thread.is_alive:
            return
        if not thread.is_paused:
            self.samples.add((number, ACCESSING))
            return
        found = sample(thread, read, self._code)
        if found is not None:
            state = found.doing | (USER if found.is_user else 0) | (WIDE if found.is_wide else 0)
            self.samples.add(with_top(number, state, found.top, (found.pc, *found.callers)))
