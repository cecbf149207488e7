"""Guest time: nanoseconds since the guest's power-on, read from the host's monotonic clock.

Device models never see a clock; the trusted helper stamps `now` on every request. The clock can be held,
and then guest time stands still: what happens to the host meanwhile is nothing that the guest can notice.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class GuestClock:
    """Starts held, at 0."""

    def __init__(self, host_now: Callable[[], int] = time.monotonic_ns) -> None:
        """`host_now` gives nanoseconds and never decreases."""
        self._host_now = host_now
        self._base = host_now()
        self._held_at: int | None = 0

    def now(self) -> int:
        """Guest time in nanoseconds."""
        if self._held_at is not None:
            return self._held_at
        return self._host_now() - self._base

    def hold(self) -> None:
        """Guest time stands still from now on."""
        self._held_at = self.now()

    def release(self) -> None:
        """Guest time goes on from where it was held."""
        if self._held_at is not None:
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
