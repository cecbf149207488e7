"""The right to spin: at most one device process with shared memory has it, if there is a spare CPU.

If the spinner has a CPU for itself, a request is as fast as a function call. If two spinners share a CPU,
or a spinner shares the CPU of the vCPU, a request is a hundred times slower. So the vCPU thread grants the
right to the process that the guest uses most, and moves the processes. The spinner runs on any other CPU,
as the kernel's scheduler decides. All other processes run beside the vCPU, where waking them is fastest.

A spinner whose CPU somebody else uses does not answer. The vCPU thread notices this within 50 µs. Then it
waits for a millisecond: the timers and threads of a host that is nearly idle take less. If the reply has
not come then, another program wants the CPU for itself. The vCPU thread fetches the process back beside
itself, where it answers as any process without the right does. So such an interruption costs a millisecond,
and not the time for which the other program runs.

After a few requests the process may spin again. But each short stint costs one of a few tries, which come
back slowly. So the spinner uses what others leave, and takes less than 1 % of a CPU that others want. More
would make this machine faster, and the host slower: two machines that spin on each other's CPU are both
slower than two that do not.

If the guest sends requests so rarely that the spinner sleeps each time, the spinner goes back as well,
because it wakes faster there. A process gets the right only if it has many requests in a short time.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Final, Protocol

SLEEPY: Final = 16
"""So many requests that found the spinner asleep are looked at together."""

SHARE: Final = 4
"""Others may take one in so many parts of the time in short turns. If it were more, two that spin on each
other's CPU would hardly notice each other.
"""

LEAST_LOSS_NS: Final = 2_000_000
"""A loss below this is an accident."""

AWAKE: Final = 8
"""A spinner is asked too seldom if it was found asleep more often than once in so many requests: a wake-up on
another CPU costs 35 µs, which seven requests without one save.
"""

DENSE_NS: Final = 6_000_000
"""Who wants to spin has been asked 64 times within this time, so often that it would not fall asleep."""

TRIES: Final = 3
"""So many short stints may follow each other."""

TRY_AGAIN_NS: Final = 250_000_000
LONGEST_WAIT_NS: Final = 1_000_000_000
"""How long it takes until a try that was used up comes back: at first, and at most, as each one in vain
doubles it. A try takes some 3 ms from whoever else uses the CPU: that is how long the scheduler lets the
spinner run.
"""

LONG_STINT_NS: Final = 20_000_000
"""A spinner that was not interrupted for so long had its CPU for itself: between two that both want the CPU,
the scheduler changes faster. All tries come back.
"""

BUSY: Final = 16
"""A spinner that has answered so many requests since somebody else asked to spin keeps its right."""


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


class SpinPermits:
    """The right to spin on the spare CPUs. Thread-safe: at most one has it at any moment.

    Whoever calls has the lock of the spinner's channel. The lock in here comes after every such lock.
    """

    def __init__(
        self,
        home: int | None,
        spares: Collection[int],
        *,
        pid_of: Callable[[str], int],
        clock: Callable[[], int] = time.monotonic_ns,
        set_affinity: Callable[[int, Collection[int]], None] = os.sched_setaffinity,
    ) -> None:
        """`home` is the vCPU's CPU and `spares` are those to spin on; None where nothing is pinned.

        `pid_of` gives the pid of a device type's process.
        """
        self._home = home
        self._spares = spares
        self._pid_of = pid_of
        self._clock = clock
        self._set_affinity = set_affinity
        self._tries = TRIES
        self._wait = TRY_AGAIN_NS
        self._tried = 0  # when the last try was used up, or has come back
        self._holder: Spinner | None = None
        self._since = 0
        self._mark = 0
        self._asleep = 0
        self._asleep_from = 0  # the number of the holder's request from which on `_asleep` counts
        self._lost = 0
        self._lost_from = 0  # since when `_lost` counts
        self._asked_at: dict[str, int] = {}
        self._refused = False
        self._lock = threading.Lock()
        self.granted = 0
        """How often the right was given, for statistics."""
        self.revoked = 0
        """How often it was taken back, because others used the CPU of its holder, or its holder slept."""

    def wanted_by(self, spinner: Spinner) -> None:
        """`spinner` has been asked 64 times without spinning: it may get the right."""
        with self._lock:
            self._wanted_by(spinner)

    def _wanted_by(self, spinner: Spinner) -> None:
        now = self._clock()
        before = self._asked_at.get(spinner.device_type)
        self._asked_at[spinner.device_type] = now
        if before is None or now - before > DENSE_NS or spinner is self._holder or self._refused:
            return
        holder = self._holder
        if holder is not None:
            answered = holder.answered - self._mark
            self._mark = holder.answered
            if answered >= BUSY:
                return
        if not self._tries_left(now):
            return
        if holder is not None:
            self._move(holder, spins=False)
        self._holder = spinner
        self._since = self._lost_from = now
        self._mark = self._asleep_from = spinner.answered
        self._asleep = self._lost = 0
        self.granted += 1
        self._move(spinner, spins=True)

    def _tries_left(self, now: int) -> int:
        back = min((now - self._tried) // self._wait, TRIES - self._tries)
        if back:
            self._tries += back
            self._tried = now
        return self._tries

    def crowded(self, spinner: Spinner) -> None:
        """Somebody else has the CPU of the holder. Call before sleeping: it is fetched back."""
        with self._lock:
            if spinner is self._holder:
                self._revoke(spinner)

    def late(self, spinner: Spinner, lost: int) -> None:
        """The holder has answered late, but not very late: this cost so many ns."""
        with self._lock:
            if spinner is not self._holder:
                return
            self._lost += lost
            if self._lost < LEAST_LOSS_NS:
                return
            now = self._clock()
            if SHARE * self._lost > now - self._lost_from:
                self._revoke(spinner)
            self._lost = 0
            self._lost_from = now

    def asleep(self, spinner: Spinner) -> None:
        """The holder had to be woken for a request."""
        with self._lock:
            if spinner is not self._holder:
                return
            self._asleep += 1
            if self._asleep < SLEEPY:
                return
            if spinner.answered - self._asleep_from < AWAKE * SLEEPY:
                self._revoke(spinner)
            self._asleep = 0
            self._asleep_from = spinner.answered

    def _revoke(self, spinner: Spinner) -> None:
        now = self._clock()
        self._holder = None
        self.revoked += 1
        self._move(spinner, spins=False)
        self._asked_at[spinner.device_type] = now
        if now - self._since >= LONG_STINT_NS:
            self._tries = TRIES
            self._wait = TRY_AGAIN_NS
        else:
            self._tries -= 1
            self._wait = min(2 * self._wait, LONGEST_WAIT_NS)
            self._tried = now

    def replaced(self, spinner: Spinner) -> None:
        """`spinner` is closed. Its replacement starts without the right."""
        with self._lock:
            if spinner is self._holder:
                self._holder = None

    def _move(self, spinner: Spinner, *, spins: bool) -> None:
        if self._home is not None:
            try:
                self._set_affinity(self._pid_of(spinner.device_type), self._spares if spins else {self._home})
            except ProcessLookupError:
                return  # it is dead, which its next request will show
            except PermissionError:
                # Another user's process and no CAP_SYS_NICE: without its own CPU it must not spin.
                self._refused = True
                self._holder = None
                return
        spinner.allow_spinning(spins)
