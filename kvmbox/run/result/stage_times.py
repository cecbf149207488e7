"""The times at which the stages of a run were done."""

from __future__ import annotations

import time


class Timeline:
    """Stages by name, in ns of the host's monotonic clock since `started`."""

    def __init__(self) -> None:
        self.started = time.monotonic_ns()
        self.stages: dict[str, int] = {}

    def mark(self, stage: str) -> None:
        """`stage` is done."""
        self.stages[stage] = time.monotonic_ns() - self.started

    def latest(self) -> str:
        """The stage that was done last, in words."""
        return next(reversed(self.stages), "the command line was read")
