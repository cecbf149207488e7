"""Guest time: nanoseconds since the power-on of the guest, read from the monotonic clock of the host.

Device models never see a clock: the trusted helper stamps `now` on every request. While the clock is held,
guest time stands still, and the guest cannot notice what happens on the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class GuestClock:
    """Starts held, at 0."""

    def __init__(self, host_now: Callable[[], int] = time.monotonic_ns) -> None:
        """`host_now` gives nanoseconds and never decreases."""
        self._host_now = host_now
        self._base = host_now()
        self._held_at: int | None = 0
        self._held = True
        self._pauses = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """Guest time in nanoseconds."""
        held_at = self._held_at
        return self._host_now() - self._base if held_at is None else held_at

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
            self._held_at = self._host_now() - self._base
        elif not stands and self._held_at is not None:
            # The base first: a reader that still sees the clock held has the same time either way.
            self._base = self._host_now() - self._held_at
            self._held_at = None

    def skip_to(self, guest_time: int) -> None:
        """Move a held clock forward to `guest_time`, if that is later."""
        if self._held_at is None:
            raise RuntimeError("the clock runs: it skips nothing")
        self._held_at = max(self._held_at, guest_time)

    def until(self, guest_time: int) -> int | None:
        """Host nanoseconds from now until `guest_time`, at least 0, or None while the clock is held."""
        return None if self._held_at is not None else max(0, guest_time - self.now())
