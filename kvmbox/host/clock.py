"""Guest time: nanoseconds since the guest's power-on, read from the host's monotonic clock.

Device models never see a clock; the trusted helper stamps `now` on every request. The clock can be held,
and then guest time stands still: what happens to the host meanwhile is nothing that the guest can notice.
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
        """Guest time stands still from now on."""
        with self._lock:
            self._held = True
            self._settle()

    def release(self) -> None:
        """Guest time goes on from where it was held, unless somebody has paused it."""
        with self._lock:
            self._held = False
            self._settle()

    def pause(self) -> None:
        """As `hold`, but for any number of callers: until each has called `resume`. Thread-safe."""
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
        """Let a held clock stand at `guest_time` instead, if that is later."""
        if self._held_at is None:
            raise RuntimeError("the clock runs: it skips nothing")
        self._held_at = max(self._held_at, guest_time)

    def until(self, guest_time: int) -> int | None:
        """Host nanoseconds from now until `guest_time`, at least 0, or None while the clock is held."""
        return None if self._held_at is not None else max(0, guest_time - self.now())
