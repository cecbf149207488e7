"""What happened before a run was there to hear of it: signals that ask for the end, and things to end.

The handler of `cli.entry` raises KeyboardInterrupt, but Python drops what is raised inside a destructor or a
weak reference's callback. So it takes a note here as well, which `host.signals` looks at when it takes over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

received: list[int] = []
"""Signal numbers, in order."""

leftovers: list[Callable[[], None]] = []
"""What ends that which was started early, for the case that nobody has taken it over. None of it raises."""
