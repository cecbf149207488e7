"""Signals that asked for the end before a run was there to hear of them.

The handler of `cli.entry` raises KeyboardInterrupt, but Python drops what is raised inside a destructor or a
weak reference's callback. So it takes a note here as well, which `host.signals` looks at when it takes over.
"""

from __future__ import annotations

received: list[int] = []
"""Signal numbers, in order."""
