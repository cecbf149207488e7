"""Who may spin: of the device processes behind shared memory, at most one for each spare CPU.

Spinning makes a request as cheap as a function call, if the spinner has a CPU for itself; two that share
one, or one that shares the vCPU's, make it a hundred times dearer. So the right to spin is granted, by the
vCPU thread, to the process that the guest asks most, and the process is moved: a spinner to the spare CPU,
every other one beside the vCPU, where waking it costs least.

A right that disappoints is taken back: when the vCPU thread has to sleep for a reply of a spinner, somebody
else wants that CPU. After `PATIENCE` such replies nobody spins for a while; each time for twice as long.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvmbox.remote.shared import SharedChannel

PATIENCE: Final = 8
"""How many late replies a spinner may give in a row of `FORGIVEN` requests."""

FORGIVEN: Final = 4096
BUSY: Final = 16
"""A spinner that has answered so many requests since somebody else asked to spin keeps its right."""

FIRST_PAUSE_NS: Final = 200_000_000
LONGEST_PAUSE_NS: Final = 10_000_000_000


class SpinGrants:
    """The right to spin on one spare CPU. Belongs to the vCPU thread."""

    def __init__(
        self,
        home: int | None,
        spare: int | None,
        *,
        pid_of: Callable[[str], int],
        clock: Callable[[], int] = time.monotonic_ns,
        set_affinity: Callable[[int, Sequence[int]], None] = os.sched_setaffinity,
    ) -> None:
        """`home` is the vCPU's CPU and `spare` the one to spin on, both None where nothing is pinned.

        `pid_of` gives the pid of a device type's process.
        """
        self._home = home
        self._spare = spare
        self._pid_of = pid_of
        self._clock = clock
        self._set_affinity = set_affinity
        self._holder: SharedChannel | None = None
        self._mark = 0
        self._late = 0
        self._late_mark = 0
        self._pause = FIRST_PAUSE_NS
        self._paused_until = 0
        self.granted = 0
        """How often the right was given, for statistics."""
        self.revoked = 0
        """How often it was taken back, because its holder answered late."""

    def wanted_by(self, channel: SharedChannel) -> None:
        """`channel` has been asked for a while without spinning: it may get the right."""
        if self._clock() < self._paused_until:
            return
        holder = self._holder
        if holder is not None:
            answered = holder.answered - self._mark
            self._mark = holder.answered
            if answered >= BUSY:
                return
            self._move(holder, spins=False)
        self._holder = channel
        self._mark = self._late_mark = channel.answered
        self._late = 0
        self.granted += 1
        self._move(channel, spins=True)

    def disappointed(self, channel: SharedChannel) -> None:
        """A reply of the holder was so late that the vCPU thread went to sleep."""
        if channel.answered - self._late_mark > FORGIVEN:
            self._late_mark = channel.answered
            self._late = 0
            self._pause = FIRST_PAUSE_NS
        self._late += 1
        if self._late < PATIENCE or channel is not self._holder:
            return
        self._holder = None
        self.revoked += 1
        self._paused_until = self._clock() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_NS)
        self._move(channel, spins=False)

    def replaced(self, channel: object) -> None:
        """Another process is behind `channel` now: it starts without the right."""
        if channel is self._holder:
            self._holder = None

    def _move(self, channel: SharedChannel, *, spins: bool) -> None:
        cpu = self._spare if spins else self._home
        if cpu is not None:
            try:
                self._set_affinity(self._pid_of(channel.device_type), {cpu})  # type: ignore[arg-type]
            except ProcessLookupError:
                return  # it is dead, which its next request will show
            except PermissionError:
                # Another user's process and no CAP_SYS_NICE: without its own CPU it must not spin.
                self._paused_until = 1 << 63
                self._holder = None
                return
        channel.allow_spinning(spins)
