"""Interrupt lines: the OR of all devices that share a line, passed to the interrupt controllers.

ISA lines are levels. Each device pin is one source of a line, and the line is high while any source is high.
A pulse (low, high) between two readings is an edge that the 8259 must see. So every change is passed on, in
order, under one lock, whichever thread causes it.

A source may take its line from the others: the line then follows this source alone. What the others ask for
is kept meanwhile, and counts again when the line is given back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable


class LineState:
    """One line: bit masks of the sources that hold it high and of those that count, and what it has done."""

    __slots__ = ("asserted", "coalesced", "heard", "raised", "replacing")

    def __init__(self) -> None:
        self.asserted = 0
        self.heard = -1
        """The sources that drive the line: all of them, or the one that has taken it."""
        self.replacing = 0
        """The sources that may take it."""
        self.raised = 0
        """Rising edges passed on."""
        self.coalesced = 0
        """Rising edges that a late host made a device fold into another one."""

    @property
    def is_high(self) -> bool:
        """The level of the line."""
        return bool(self.asserted & self.heard)

    @property
    def is_asked_for(self) -> bool:
        """Whether a source whose line it is wants it high, even if another one has taken it."""
        return bool(self.asserted & ~self.replacing)


class InterruptRouter:
    """All lines of a machine. `attach` connects it to the interrupt controllers of one virtual machine."""

    def __init__(self) -> None:
        self.lines: dict[int, LineState] = {}
        self._set_line: Callable[[int, int], None] | None = None
        self._sources = 0
        self._lock = threading.Lock()

    def source(self, gsi: int) -> Callable[[int, int], None]:
        """A new source of line `gsi`: a function of (level, coalesced)."""
        return self._source(*self._new_source(gsi))

    def replacing_source(self, gsi: int) -> tuple[Callable[[int, int], None], Callable[[int], None]]:
        """The same, and a function that takes the line from all other sources (1), or gives it back (0)."""
        gsi, state, bit = self._new_source(gsi)
        state.replacing |= bit

        def take(taken: int) -> None:
            with self._lock:
                before = state.is_high
                state.heard = bit if taken else -1
                self._pass_on(gsi, state, before)

        return self._source(gsi, state, bit), take

    def _new_source(self, gsi: int) -> tuple[int, LineState, int]:
        bit = 1 << self._sources
        self._sources += 1
        return gsi, self.lines.setdefault(gsi, LineState()), bit

    def _source(self, gsi: int, state: LineState, bit: int) -> Callable[[int, int], None]:
        def change(level: int, coalesced: int) -> None:
            with self._lock:
                before = state.is_high
                state.asserted = state.asserted | bit if level else state.asserted & ~bit
                if state.heard & bit:
                    state.coalesced += coalesced
                self._pass_on(gsi, state, before)

        return change

    def _pass_on(self, gsi: int, state: LineState, before: bool) -> None:
        level = state.is_high
        if level != before:
            state.raised += level
            if self._set_line is not None:
                self._set_line(gsi, int(level))

    def resume(self, states: Iterable[tuple[int, int, int]]) -> None:
        """Go on as (line, sources that ask for it, sources that are heard) say. Nothing is attached yet."""
        with self._lock:
            for gsi, asserted, heard in states:
                line = self.lines[gsi]
                line.asserted, line.heard = asserted, heard

    def attach(self, set_line: Callable[[int, int], None], *, are_set: bool = False) -> None:
        """From now on `set_line(gsi, level)` drives the controllers. Lines that are high are set at once,
        unless the controllers have them so already: for them it would be an edge.
        """
        with self._lock:
            self._set_line = set_line
            if are_set:
                return
            for gsi, state in self.lines.items():
                if state.is_high:
                    set_line(gsi, 1)

    def detach(self) -> None:
        """Disconnect the controllers. Changes are only stored until the next `attach`."""
        with self._lock:
            self._set_line = None
