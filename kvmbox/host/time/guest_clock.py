"""Guest time: nanoseconds since the power-on of the guest, read from the monotonic clock of the host.

Device models never see a clock: the trusted helper stamps `now` on every request. While the clock is held,
guest time stands still, and the guest cannot notice what happens on the host.

The main thread serves the deadlines of devices. If it came late, the guest could notice that as well: ticks
would be folded, and counters would have run ahead of them. So guest time runs on *loan* (`lend`): it comes no
further than the main thread has allowed in advance, and goes on from there when the main thread is back. The
main thread may be late because kvmbox waits, the VMM was stopped (SIGSTOP, Ctrl-Z), or the host is busy. How
often the loan was used up, and how long guest time then stood still, is counted.

The host's clock is CLOCK_MONOTONIC. Settings of the wall clock do not change it, and it stands still while
the host is suspended. So does guest time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

FOREVER: Final = 1 << 62
"""A loan that is not used up, in ns: 146 years."""


class GuestClock:
    """Starts held, at 0."""

    def __init__(self, host_now: Callable[[], int] = time.monotonic_ns) -> None:
        """`host_now` gives nanoseconds and never decreases. Until the first `lend` the loan is `FOREVER`."""
        self._host_now = host_now
        self._base = host_now()
        self._held_at: int | None = 0
        self._held = True
        self._pauses = 0
        self._limit = FOREVER  # the guest time that the loan ends at
        self._lock = threading.Lock()
        self.stalls = 0
        """How often the loan was used up."""
        self.stalled = 0
        """How long guest time stood still for that, in ns."""

    def now(self) -> int:
        """Guest time in nanoseconds."""
        while True:
            # The limit before the base, which `lend` moves before the limit.
            held_at, limit, base = self._held_at, self._limit, self._base
            if held_at is not None:
                return held_at
            now = self._host_now() - base
            # Otherwise another thread has held or moved the clock meanwhile: `now` may never have been.
            if self._held_at is None and self._base == base:
                return min(now, limit)

    @property
    def runs(self) -> bool:
        """Whether guest time does not stand still because somebody holds it."""
        return self._held_at is None

    def lend(self, nanoseconds: int) -> bool:
        """Guest time may run for so long, and comes no further before the next call. Return whether the loan
        before was used up: then what waits for a guest time has to be armed anew.
        """
        with self._lock:
            now, late = self._held_at, 0
            if now is None:
                now = self._host_now() - self._base
                late = now - self._limit
            if late > 0:
                now = self._limit
                self.stalls += 1
                self.stalled += late
                self._base += late
            self._limit = now + nanoseconds
            return late > 0

    def hold(self) -> None:
        """Stop guest time."""
        with self._lock:
            self._held = True
            self._settle()

    def release(self) -> None:
        """Continue guest time, unless it is paused."""
        with self._lock:
            self._held = False
            self._settle()

    def pause(self) -> None:
        """Stop guest time until every caller of `pause` has called `resume`. Thread-safe."""
        with self._lock:
            self._pauses += 1
            self._settle()

    def resume(self) -> None:
        """Undo one `pause`."""
        with self._lock:
            self._pauses -= 1
            self._settle()

    def _settle(self) -> None:
        stands = self._held or self._pauses > 0
        if stands and self._held_at is None:
            self._held_at = min(self._host_now() - self._base, self._limit)
        elif not stands and self._held_at is not None:
            # The base first: a reader that still sees the clock held has the same time either way.
            self._base = self._host_now() - self._held_at
            self._held_at = None

    def skip_to(self, guest_time: int) -> None:
        """Move a held clock forward to `guest_time`, if that is later."""
        if self._held_at is None:
            raise RuntimeError("the clock runs: it skips nothing")
        self._held_at = max(self._held_at, guest_time)
        self._limit = max(self._limit, guest_time)

    def until(self, guest_time: int) -> int | None:
        """Host nanoseconds from now until `guest_time`, at least 0, or None while the clock is held."""
        return None if self._held_at is not None else max(0, guest_time - self.now())
