"""The processes of a session: what a command that leads one leaves behind."""

from __future__ import annotations

import os
from collections.abc import Iterator


def members(session: int) -> Iterator[int]:
    """Processes of a session that still run."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.getsid(int(name)) == session:
                    yield int(name)
            except ProcessLookupError:
                continue
