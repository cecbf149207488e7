"""How long a visitor lets guest time stand, for a person who looks."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, ExitStack


class StoppedTime:
    """Guest time of one machine, which somebody stops and lets go on. It counts for no time-out."""

    def __init__(self) -> None:
        self._still = ExitStack()
        self._before = 0
        self._since: int | None = None

    @property
    def stands(self) -> bool:
        """Whether it stands now."""
        return self._since is not None

    @property
    def ns(self) -> int:
        """For how long it has stood in all, in ns of the host."""
        return self._before + (0 if self._since is None else time.monotonic_ns() - self._since)

    def stop(self, timeless: AbstractContextManager[object]) -> None:
        """Stop it, by `MainLoop.timeless`. Raises DeviceProcessError."""
        self._since = time.monotonic_ns()
        self._still.enter_context(timeless)

    def go_on(self) -> None:
        """Let it go on, if it stands."""
        self._before, self._since = self.ns, None
        self._still.close()
