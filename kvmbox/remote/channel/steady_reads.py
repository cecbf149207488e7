"""Steady reads: values that the VMM gives the guest again without asking the device.

The reply to a read may say that the value stays for some time, and that reading it has no effect
(`contract.model.SteadyModel`). Until that time, or the next request that may change something, the run loop
answers further reads of the register by itself.

Who may change something: every request but a steady read. `changes` counts these requests, each before it is
sent, or, of a read that turned out not to be steady, before its value is used. So a value that is as old as
the count was given, or could have been given, after the last change. `moves` also counts indexed reads, which
change what an index register selects; a value that was read without naming the index is tied to that count.

An entry is tied to these counts, and never removed. A run loop compares without a lock: a change that another
thread is just about to send comes after the read, as it could have with a device of its own.

While KVM's ring holds writes that have not been delivered, a value may be given in three cases: late writes
leave it as it is, the newest of these writes selects the index that the value was read with, or it is the
value of the first read behind each late write. In the last case the device gets the read when it gets these
writes, if no write is behind it: see `CoalescedRing.owe`.

Nothing is steady on a channel that is recorded: a recording has each access.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvmbox.host.time.guest_clock import GuestClock
from kvmbox.remote.transport.interface import Words
from kvmbox.wire.protocol import (
    BEHIND_LATE_WRITES,
    INDEXED_READ,
    OVER_LATE_WRITES,
    ROUTE_MASK,
    STEADY_KINDS,
    STEADY_SHIFT,
)

ENTRIES: Final = 64
"""How many values a channel keeps at most. A guest may read many registers, but polls few."""

BEHIND_WRITES: Final = -1
"""Instead of an index: the first read behind a late write."""


class SteadyReads:
    """The steady values of one channel. They change under the lock of the channel."""

    def __init__(self, now: Callable[[], int]) -> None:
        """`now` is a clock's. Of another one than a `GuestClock` nothing is steady."""
        clock = getattr(now, "__self__", None)
        self._clock = clock if isinstance(clock, GuestClock) else None
        self.changes = 0
        self.moves = 0
        self.entries: dict[tuple[int, int, int], tuple[int, int, int, int]] = {}
        """By route (the word), register and posted index: the count, the time until, the value, and whether
        late writes leave it."""

    def begins(self, kind: int) -> None:
        """A request of this kind is about to be sent."""
        if kind == INDEXED_READ:
            self.moves += 1
        elif kind not in STEADY_KINDS:
            self.changed()

    def ends(self, asked: Words, reply: Words) -> None:
        """A request of `STEADY_KINDS` was answered, without effects, and the reply was found good."""
        first, now, index, offset = asked
        steady = reply[3]
        if not steady:
            self.changed()
            return
        if self._clock is None:
            return
        until = min(now + (steady >> STEADY_SHIFT) * 1000, reply[1])
        kind = first & 0xFF
        if len(self.entries) >= ENTRIES:
            self.entries.clear()
        count = self.changes if kind == INDEXED_READ else self.moves
        if steady & BEHIND_LATE_WRITES:
            index = BEHIND_WRITES
        self.entries[first & ROUTE_MASK, offset, index] = count, until, reply[2], steady & OVER_LATE_WRITES

    def changed(self) -> None:
        """Something may have changed."""
        self.changes += 1
        self.moves += 1

    def value(self, word: int, offset: int, index: int, *, late: bool) -> int | None:
        """The value that a read would give, if it is known. `late`: writes wait that may be late."""
        entry = self.entries.get((word, offset, index))
        if entry is None:
            return None
        count, until, value, over_late_writes = entry
        if late and not over_late_writes:
            return None
        if count != (self.changes if word & 0xFF == INDEXED_READ else self.moves):
            return None
        clock = self._clock
        if clock is None or not clock.runs or clock.now() >= until:
            return None
        return value
