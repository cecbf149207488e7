"""Interrupt lines: the OR of all devices that share a line, passed to the interrupt controllers.

ISA lines are levels. Each device pin is one source of a line, and the line is high while any source is high.
A pulse (low, high) between two readings is an edge that the 8259 must see. So every change is passed on, in
order, under one lock, whichever thread causes it.

A source may take its line from the others: the line then follows this source alone. What the others ask for
is kept meanwhile, and counts again when the line is given back.

Rises that are announced
------------------------

A model may announce when its pin will rise. At this time the line can be raised before the model is told the
time, and so without waiting for the process of the model (docs/adr/interrupts.md). Raised ahead, a source
stands high, whatever the model has reported last. The next rising edge that the model reports is the one that
has been passed on, and so is a falling edge right before it: neither is passed on again. A source that rises
with each late write (`contract.model.PULSES`) is raised ahead as often, and as many edges are passed on.

What raising a source would do to its line is worked out beforehand, whenever the line changes (`lowers`,
`passes`). So the thread that raises lines needs no more than these values, and they are `ready` unless a
second source is about to raise the line. What the thread has done (`fired`) is accounted for at the next
change of the line. All four are used under the router's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from kvmbox.contract.model import NO_RISE


class LineState:
    """One line: bit masks of the sources that hold it high and of those that count, and what it has done."""

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
        self.announced: list[Source] = []
        """The sources whose rise has been announced."""

    @property
    def is_high(self) -> bool:
        """The level of the line."""
        return bool(self.asserted & self.heard)

    @property
    def is_asked_for(self) -> bool:
        """Whether a source whose line it is wants it high, even if another one has taken it."""
        return bool(self.asserted & ~self.replacing)


class Source:
    """A device pin that drives line `gsi`; see `remote.channel.grants.Rise`. Call it with (level, coalesced).

    `at` is when the pin will rise, in ns of guest time, or `NO_RISE`; it belongs to the lock of the channel.
    """

    slack = 0
    """See Rise: without a thread that raises lines, none."""

    def __init__(self, router: InterruptRouter, gsi: int, state: LineState, bit: int) -> None:
        self.at = NO_RISE
        self.gsi = gsi
        self.lowers = False
        """Whether the line goes low before it rises, when the source is raised."""
        self.passes = False
        """Whether the line rises."""
        self.ready = False
        """Whether these two are good without a look at other sources of the line."""
        self.fired = False
        """Whether the source has been raised, and nothing but the controllers knows it."""
        self.bit = bit
        self.state = state
        self.level = 0
        """What the model has reported."""
        self.ahead = 0
        """How often it was raised without the model having reported that yet."""
        self._router = router

    def __call__(self, level: int, coalesced: int) -> None:
        """The pin has a new level; `coalesced` rising edges were folded into this one."""
        self._router.change(self, level, coalesced)

    def guarded_by(self, lock: Any) -> None:
        """See Rise."""

    def announce(self, at: int) -> None:
        """See Rise."""
        self.at = at
        self._router.announce(self)

    def raise_ahead(self) -> None:
        """See Rise."""
        self.at = NO_RISE
        self._router.raise_ahead(self)

    def settle(self) -> None:
        """See Rise."""
        if self.ahead or self.fired:
            self._router.settle(self)


class InterruptRouter:
    """All lines of a machine. `attach` connects it to the interrupt controllers of one virtual machine."""

    line_kind: type[LineState] = LineState
    source_kind: type[Source] = Source

    def __init__(self, lock: Any = None) -> None:
        self._lines: dict[int, LineState] = {}
        self._set_line: Callable[[int, int], None] | None = None
        self._controllers = -1
        self._sources: list[Source] = []
        self._lock = lock or threading.Lock()

    @property
    def lines(self) -> dict[int, LineState]:
        """The state of each line that has a source."""
        with self._lock:
            for state in self._lines.values():
                self._catch_up(state)
        return self._lines

    # --- Sources ------------------------------------------------------------------------------------------

    def source(self, gsi: int) -> Source:
        """A new source of line `gsi`: a function of (level, coalesced)."""
        state = self._lines.setdefault(gsi, self.line_kind())
        source = self.source_kind(self, gsi, state, 1 << len(self._sources))
        self._sources.append(source)
        return source

    def replacing_source(self, gsi: int) -> tuple[Source, Callable[[int], None]]:
        """The same, and a function that takes the line from all other sources (1), or gives it back (0)."""
        source = self.source(gsi)
        state = source.state
        state.replacing |= source.bit

        def take(taken: int) -> None:
            with self._lock:
                before = self._level_before(state)
                state.heard = source.bit if taken else -1
                self._pass_on(gsi, state, before)

        return source, take

    def rise_of(self, line: Callable[[int, int], None]) -> Source | None:
        """The source `line`, which hears of announcements."""
        return line if isinstance(line, Source) else None

    # --- What sources do ------------------------------------------------------------------------------------

    def change(self, source: Source, level: int, coalesced: int) -> None:
        """The model of `source` has reported a level."""
        state = source.state
        with self._lock:
            before = self._level_before(state)
            source.level = level
            passed = min(source.ahead, 1 + coalesced) if level else 0
            source.ahead -= passed
            if level or not source.ahead:
                state.asserted = state.asserted | source.bit if level else state.asserted & ~source.bit
            if state.heard & source.bit:
                state.coalesced += coalesced + 1 - max(passed, 1)
            self._pass_on(source.gsi, state, before)

    def announce(self, source: Source) -> None:
        """The time of the next rise of `source` has changed."""
        state = source.state
        with self._lock:
            self._catch_up(state)
            if source.at == NO_RISE and source in state.announced:
                state.announced.remove(source)
            elif source.at != NO_RISE and source not in state.announced:
                state.announced.append(source)
            self._plan(state)
        self.rearm()

    def raise_ahead(self, source: Source) -> None:
        """Raise `source` now, before its model reports it."""
        with self._lock:
            self._catch_up(source.state)
            if source not in source.state.announced:
                return
            if source.passes and self._set_line is not None:
                if source.lowers:
                    self._set_line(source.gsi, 0)
                self._set_line(source.gsi, 1)
            source.fired = True
            self._catch_up(source.state)

    def settle(self, source: Source) -> None:
        """The model of `source` has had its chance to report the rise."""
        state = source.state
        with self._lock:
            before = self._level_before(state)
            if source.ahead and not source.level:
                state.asserted &= ~source.bit
            source.ahead = 0
            self._pass_on(source.gsi, state, before)

    # --- Under the lock -------------------------------------------------------------------------------------

    def _level_before(self, state: LineState) -> bool:
        self._catch_up(state)
        return state.is_high

    def _catch_up(self, state: LineState) -> None:
        """Account for the sources that have been raised ahead."""
        for source in [source for source in state.announced if source.fired]:
            state.announced.remove(source)
            source.fired, source.ahead = False, source.ahead or 1
            state.asserted |= source.bit
            state.raised += source.passes
            self._plan(state)

    def _pass_on(self, gsi: int, state: LineState, before: bool) -> None:
        level = state.is_high
        if level != before:
            state.raised += level
            if self._set_line is not None:
                self._set_line(gsi, int(level))
        if state.announced:
            self._plan(state)

    def _plan(self, state: LineState) -> None:
        """Work out what raising each of the announced sources would do to the line."""
        for source in state.announced:
            others = bool(state.asserted & state.heard & ~source.bit)
            source.passes = bool(state.heard & source.bit) and not others
            source.lowers = bool(state.asserted & source.bit)
        alone = len(state.announced) < 2
        for source in state.announced:
            source.ready = alone or not source.passes

    def assert_again(self, gsi: int) -> None:
        """If line `gsi` is high, tell the controllers once more.

        That is an edge to an 8259 that was initialized while the line was high, and nothing to others: the
        initialization resets its edge sense (Intel 8259A, ICW1).
        """
        with self._lock:
            state = self._lines[gsi]
            if self._level_before(state) and self._set_line is not None:
                self._set_line(gsi, 1)

    # --- Controllers ----------------------------------------------------------------------------------------

    def resume(self, states: Iterable[tuple[int, int, int]]) -> None:
        """Go on as (line, sources that ask for it, sources that are heard) say. Nothing is attached yet."""
        with self._lock:
            for gsi, asserted, heard in states:
                line = self._lines[gsi]
                line.asserted, line.heard = asserted, heard
                self._plan(line)
            for source in self._sources:
                source.level = int(bool(source.state.asserted & source.bit))

    def attach(
        self, set_line: Callable[[int, int], None], descriptor: int = -1, *, are_set: bool = False
    ) -> None:
        """From now on `set_line(gsi, level)` drives the controllers. Lines that are high are set at once,
        unless the controllers have them so already (`are_set`): for them it would be an edge.

        `descriptor` is that of the virtual machine, which compiled code asks without `set_line`.
        """
        with self._lock:
            self._set_line, self._controllers = set_line, descriptor
            for gsi, state in self._lines.items():
                if self._level_before(state) and not are_set:
                    set_line(gsi, 1)

    def detach(self) -> None:
        """Disconnect the controllers. Changes are only stored until the next `attach`."""
        with self._lock:
            self._set_line, self._controllers = None, -1

    # --- The thread that raises lines -----------------------------------------------------------------------

    def start(self, *, cpu: int | None, confine: Callable[[], None]) -> None:
        """Raise announced lines at their time, in a thread, where there is compiled code for it.

        The thread binds itself to `cpu`, and calls `confine` first of all. Without the thread, lines are
        raised ahead of each ADVANCE. Raises KvmboxError if the host has no room for a thread.
        """

    def rearm(self) -> None:
        """Announcements have changed, or the clock was released or held."""

    def step_aside(self) -> None:
        """Move the calling thread, which has some work to do, off the CPU of the thread that raises announced
        lines, if one is announced and there is another CPU. It may come back at once.
        """

    def close(self) -> None:
        """End the thread. Idempotent."""
