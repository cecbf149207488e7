"""The faults of one device: which of its events are hit, and how many there were.

An *event* is what a fault may hit: an interrupt, a read, a received byte. Each fault of each device counts
its own events, from the moment on at which the fault begins. Event number n is hit if the n-th number of the
fault's own sequence (`chance`) says so. Nothing else decides: no clock, unless the person asked for a time,
and no state that another device, another fault or another run has.

The counts go on when the machine reboots, and when a device process is restarted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.parts.inject import chance
from kvmbox.parts.inject.fault_table import VANISH
from kvmbox.parts.inject.spec import Spec, Wanted


class Count(Value):
    """How many `events` of a device a fault could have hit, and how many it has."""

    device: str
    fault: str
    events: int
    injected: int


class _Rule:
    """One fault of one device, at work."""

    __slots__ = ("after", "at", "began", "events", "injected", "key", "wanted")

    def __init__(self, device: str, spec: Spec, wanted: Wanted) -> None:
        self.wanted = wanted
        self.after = spec.after
        self.at = spec.at
        self.key = chance.key_of(spec.seed, device, wanted.fault.name)
        self.events = 0
        self.injected = 0
        self.began: int | None = None
        """Guest time of its first event."""


class DeviceFaults:
    """What is wrong with one device. Thread-safe."""

    def __init__(self, device: str, now: Callable[[], int]) -> None:
        """`now` gives guest time in ns."""
        self.device: Final = device
        self.accesses = 0
        """How many accesses the guest has made, the present one included."""
        self.now: Final = now
        self._rules: dict[str, _Rule] = {}
        self._lock = threading.Lock()  # taken last: a thread with it takes no other

    def add(self, spec: Spec, wanted: Wanted) -> bool:
        """Add a fault. Returns whether the device does not have it already."""
        name = wanted.fault.name
        if name in self._rules:
            return False
        self._rules[name] = _Rule(self.device, spec, wanted)
        return True

    def wanted(self, fault: str) -> Wanted | None:
        """The values of a fault, or None if the device does not have it."""
        rule = self._rules.get(fault)
        return None if rule is None else rule.wanted

    def has(self, faults: Iterable[str]) -> bool:
        """Whether the device has one of these."""
        return any(fault in self._rules for fault in faults)

    def access(self) -> None:
        """The guest makes one more access."""
        with self._lock:
            self.accesses += 1

    def happens(self, fault: str) -> bool:
        """An event of a fault with a chance, or that hits every Nth event: whether it is hit."""
        return self._event(fault, _is_drawn)

    def lasts(self, fault: str) -> bool:
        """An event of a fault with a span: whether it lies within that."""
        return self._event(fault, self._is_within)

    @property
    def is_gone(self) -> bool:
        """Whether the device has vanished: that is no event."""
        rule = self._rules.get(VANISH)
        if rule is None or not self._has_begun(rule):
            return False
        with self._lock:
            return self._is_within(rule)

    def once(self, fault: str) -> bool:
        """Whether a fault that comes once is due now; it then never is again."""
        rule = self._rules.get(fault)
        if rule is None or rule.events or not self._has_begun(rule):
            return False
        with self._lock:
            rule.events += 1
            rule.injected += 1
            return rule.events == 1

    @property
    def counts(self) -> list[Count]:
        """What has happened so far."""
        with self._lock:
            return [
                Count(self.device, name, rule.events, rule.injected) for name, rule in self._rules.items()
            ]

    def _event(self, fault: str, is_hit: Callable[[_Rule], bool]) -> bool:
        """Count an event of a fault. `is_hit` decides under the lock."""
        rule = self._rules.get(fault)
        if rule is None or not self._has_begun(rule):
            return False
        with self._lock:
            hit = is_hit(rule)
            rule.events += 1
            rule.injected += hit
        return hit

    def _has_begun(self, rule: _Rule) -> bool:
        return (not rule.after or self.accesses > rule.after) and (not rule.at or self.now() >= rule.at)

    def _is_within(self, rule: _Rule) -> bool:
        """Under the lock: whether the next event of a span lies within it."""
        if rule.wanted.accesses is not None:
            return rule.events < rule.wanted.accesses
        if rule.wanted.nanoseconds is None:
            return True
        now = self.now()
        if rule.began is None:
            rule.began = now
        return now - rule.began < rule.wanted.nanoseconds


def _is_drawn(rule: _Rule) -> bool:
    """Whether chance has drawn the next event, or whether it is the turn of it."""
    return (
        rule.events % rule.wanted.each == rule.wanted.each - 1
        and chance.number(rule.key, rule.events) < rule.wanted.threshold
    )
