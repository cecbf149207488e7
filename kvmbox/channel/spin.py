"""The right to spin: at most one device process with shared memory has it, if there is a spare CPU.

If the spinner has a CPU for itself, a request is as fast as a function call. If two spinners share a CPU, or
a spinner shares the CPU of the vCPU, a request is a hundred times slower. So the vCPU thread grants the right
to the process that the guest uses most, and moves the processes. The spinner runs on the spare CPU. All other
processes run beside the vCPU, where waking them is fastest.

A right that does not pay is withdrawn. If a vCPU thread has to sleep for a reply of the spinner, another
program uses the spare CPU. The lost time is added up. When it exceeds the cost of a doorbell for all
requests, no process spins for a while, and each time for twice as long. If the guest sends requests so rarely
that the spinner sleeps each time, the spinner goes back beside the vCPU, where it wakes faster. A process
gets the right only if it has many requests in a short time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

DOORBELL_NS: Final = 8_000
"""What a request costs more without spinning, about: more than that must not be lost per request."""

LEAST_LOSS_NS: Final = 2_000_000
"""A loss below this is an accident."""

WINDOW: Final = 8192
"""After how many requests losses are forgotten."""

SLEEPY: Final = 16
"""A spinner that was found asleep so often is asked too seldom to spin."""

DENSE_NS: Final = 2_000_000
"""Who wants to spin has been asked sixteen times within this time."""

BUSY: Final = 16
"""A spinner that has answered so many requests since somebody else asked to spin keeps its right."""

FIRST_PAUSE_NS: Final = 200_000_000
LONGEST_PAUSE_NS: Final = 10_000_000_000


class Spinner(Protocol):
    """A process that may get the right to spin."""

    device_type: str

    @property
    def answered(self) -> int:
        """The approximate number of requests, for comparison with an earlier value."""
        ...

    def allow_spinning(self, allowed: bool) -> None:
        """Whether both sides may spin from now on. True by who asks this one just now, False by any thread:
        the right goes to another one while this one may be waiting for a reply.
        """
        ...


class SpinGrants:
    """The right to spin on one spare CPU. Thread-safe: at most one has it at any moment.

    Whoever calls has the lock of the spinner's channel. The lock in here comes after every such lock.
    """

    def __init__(
        self,
        home: int | None,
        spare: int | None,
        *,
        pid_of: Callable[[str], int],
        clock: Callable[[], int] = time.monotonic_ns,
        set_affinity: Callable[[int, set[int]], None] = os.sched_setaffinity,
    ) -> None:
        """`home` is the vCPU's CPU and `spare` the one to spin on, both None where nothing is pinned.

        `pid_of` gives the pid of a device type's process.
        """
        self._home = home
        self._spare = spare
        self._pid_of = pid_of
        self._clock = clock
        self._set_affinity = set_affinity
        self._holder: Spinner | None = None
        self._mark = 0
        self._since = 0  # number of the holder's request from which on losses count
        self._lost = 0
        self._asleep = 0
        self._asked_at: dict[str, int] = {}
        self._pause = FIRST_PAUSE_NS
        self._paused_until = 0
        self._lock = threading.Lock()
        self.granted = 0
        """How often the right was given, for statistics."""
        self.revoked = 0
        """How often it was taken back, because its holder answered too late too often."""

    def wanted_by(self, spinner: Spinner) -> None:
        """`spinner` has been asked sixteen times without spinning: it may get the right."""
        with self._lock:
            self._wanted_by(spinner)

    def _wanted_by(self, spinner: Spinner) -> None:
        now = self._clock()
        before = self._asked_at.get(spinner.device_type)
        self._asked_at[spinner.device_type] = now
        if before is None or now - before > DENSE_NS or now < self._paused_until or spinner is self._holder:
            return
        holder = self._holder
        if holder is not None:
            answered = holder.answered - self._mark
            self._mark = holder.answered
            if answered >= BUSY:
                return
            self._move(holder, spins=False)
        self._holder = spinner
        self._mark = self._since = spinner.answered
        self._lost = self._asleep = 0
        self.granted += 1
        self._move(spinner, spins=True)

    def late(self, spinner: Spinner, lost: int) -> None:
        """A vCPU thread went to sleep for a reply of the holder and lost so many ns, or 0 where the holder
        had to be woken first.
        """
        with self._lock:
            self._late(spinner, lost)

    def _late(self, spinner: Spinner, lost: int) -> None:
        if spinner is not self._holder:
            return
        answered = spinner.answered - self._since
        if answered > WINDOW:
            self._since = spinner.answered
            self._lost = self._asleep = 0
            self._pause = FIRST_PAUSE_NS
            return
        if lost == 0:
            self._asleep += 1
            if self._asleep >= SLEEPY and answered < 4 * self._asleep:
                self._holder = None
                self._move(spinner, spins=False)
            return
        self._lost += lost
        if self._lost > max(LEAST_LOSS_NS, DOORBELL_NS * answered):
            self._holder = None
            self.revoked += 1
            self._paused_until = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_NS)
            self._move(spinner, spins=False)

    def replaced(self, spinner: Spinner) -> None:
        """`spinner` is closed. Its replacement starts without the right."""
        with self._lock:
            if spinner is self._holder:
                self._holder = None

    def _move(self, spinner: Spinner, *, spins: bool) -> None:
        cpu = self._spare if spins else self._home
        if cpu is not None:
            try:
                self._set_affinity(self._pid_of(spinner.device_type), {cpu})
            except ProcessLookupError:
                return  # it is dead, which its next request will show
            except PermissionError:
                # Another user's process and no CAP_SYS_NICE: without its own CPU it must not spin.
                self._paused_until = 1 << 63
                self._holder = None
                return
        spinner.allow_spinning(spins)
