"""Interrupt lines: the OR of all devices that share a line, passed to the interrupt controllers.

ISA lines are levels. Each device pin is one source of a line, and the line is high while any source is high.
A pulse (low, high) between two readings is an edge that the 8259 must see. So every change is passed on, in
order, under one lock, whichever thread causes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class LineState:
    """One line: bit mask of the sources that hold it high, and what it has done so far."""

    __slots__ = ("asserted", "coalesced", "raised")

    def __init__(self) -> None:
        self.asserted = 0
        self.raised = 0
        """Rising edges passed on."""
        self.coalesced = 0
        """Rising edges that a late host made a device fold into another one."""


class InterruptRouter:
    """All lines of a machine. `attach` connects it to the interrupt controllers of one virtual machine."""

    def __init__(self) -> None:
        self.lines: dict[int, LineState] = {}
        self._set_line: Callable[[int, int], None] | None = None
        self._sources = 0
        self._lock = threading.Lock()

    def source(self, gsi: int) -> Callable[[int, int], None]:
        """A new source of line `gsi`: a function of (level, coalesced)."""
        state = self.lines.setdefault(gsi, LineState())
        bit = 1 << self._sources
        self._sources += 1

        def change(level: int, coalesced: int) -> None:
            with self._lock:
                before = state.asserted
                state.asserted = before | bit if level else before & ~bit
                state.coalesced += coalesced
                if bool(before) != bool(state.asserted):
                    state.raised += level
                    if self._set_line is not None:
                        self._set_line(gsi, level)

        return change

    def attach(self, set_line: Callable[[int, int], None]) -> None:
        """From now on `set_line(gsi, level)` drives the controllers. Lines that are high are set at once."""
        with self._lock:
            self._set_line = set_line
            for gsi, state in self.lines.items():
                if state.asserted:
                    set_line(gsi, 1)

    def detach(self) -> None:
        """Disconnect the controllers. Changes are only stored until the next `attach`."""
        with self._lock:
            self._set_line = None
