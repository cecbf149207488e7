"""When the stages of a run were done."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Timeline:
    """Stages by name, in ns of the host's monotonic clock since `started`."""

    started: int = field(default_factory=time.monotonic_ns)
    stages: dict[str, int] = field(default_factory=dict)

    def mark(self, stage: str) -> None:
        """`stage` is done."""
        self.stages[stage] = time.monotonic_ns() - self.started
