"""An interrupt pin of a device with faults: between what the model reports and the line of the machine.

Lines are levels. An interrupt is the moment at which the model raises its pin. If the interrupt is dropped,
the line stays low until the model has lowered the pin and raises it again. If it is delayed, the line is
raised later: after some more accesses of the guest to the device, or at a guest time. If the model has
lowered the pin meanwhile, the late interrupt is a pulse: a controller with edge-triggered inputs still sees
it. An interrupt that comes while another one is late replaces that. A reset of the machine ends the delay.

Who calls, under which lock. The pin's own levels come from the channel of the device, under the lock of the
channel. A delay by time is like a rise that a model has announced (`remote.channel.grants.Rise`): the channel
raises the line before it sends ADVANCE. Accesses end on vCPU threads, without the lock of the channel. So a
line has a lock of its own. It is taken after that of the channel, and before that of the router.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kvmbox.contract.model import NO_RISE
from kvmbox.parts.inject.device_faults import DeviceFaults
from kvmbox.parts.inject.fault_table import DELAY_IRQ, DROP_IRQ


class FaultyLine:
    """One pin: called with (level, coalesced), as the line itself. It is a `Rise`, too."""

    slack = 0
    """See Rise."""

    def __init__(
        self, line: Callable[[int, int], None], faults: DeviceFaults, postponed: Callable[[], None]
    ) -> None:
        """`postponed` hears that `at` has a new value. It is called under the lock of the channel."""
        self.at = NO_RISE
        """When the line will rise, in ns of guest time, or `NO_RISE`."""
        self._line = line
        self._faults = faults
        self._postponed = postponed
        self._lock = threading.Lock()
        self._pin = 0  # what the model has reported
        self._level = 0  # what was passed on
        self._due_access: int | None = None  # the access after which it rises

    def __call__(self, level: int, coalesced: int) -> None:
        """The model has reported a level."""
        with self._lock:
            rises = level and not self._pin
            self._pin = level
            if not level:
                self._pass_on(0)
            elif not rises:
                if self._level:
                    self._line(1, coalesced)
            elif not self._faults.is_gone and not self._faults.happens(DROP_IRQ):
                if self._faults.happens(DELAY_IRQ):
                    self._postpone()
                else:
                    self._forget()
                    self._pass_on(1, coalesced)

    def access_ends(self) -> None:
        """The guest has made an access to the device."""
        with self._lock:
            if self._faults.is_gone:
                self._forget()
                self._pass_on(0)
            elif self._due_access is not None and self._faults.accesses >= self._due_access:
                self._rise_late()

    def reset(self) -> None:
        """The machine is reset: an interrupt that is late never comes."""
        with self._lock:
            self._forget()

    @property
    def is_high(self) -> bool:
        """The level that was passed on."""
        return bool(self._level)

    def pulse(self) -> None:
        """An interrupt without a cause."""
        with self._lock:
            if not self._level:
                self._pass_on(1)
                self._pass_on(0)

    # --- See Rise -----------------------------------------------------------------------------------------

    def raise_ahead(self) -> None:
        """The time of a delayed interrupt has come."""
        with self._lock:
            if self.at != NO_RISE:
                self._rise_late()

    def announce(self, at: int) -> None:
        """Models with faults announce nothing, and a process that is gone has nothing to announce."""

    def guarded_by(self, lock: object) -> None:
        """Nobody but the channel raises the line."""

    def settle(self) -> None:
        """There is nothing to take back."""

    # --- Under the lock -------------------------------------------------------------------------------------

    def _postpone(self) -> None:
        wanted = self._faults.wanted(DELAY_IRQ)
        assert wanted is not None
        if wanted.accesses is not None:
            self._due_access = self._faults.accesses + wanted.accesses
        else:
            assert wanted.nanoseconds is not None
            self.at = self._faults.now() + wanted.nanoseconds
            self._postponed()

    def _rise_late(self) -> None:
        self._forget()
        self._pass_on(1)
        self._pass_on(self._pin)

    def _forget(self) -> None:
        self.at, self._due_access = NO_RISE, None

    def _pass_on(self, level: int, coalesced: int = 0) -> None:
        if level != self._level:
            self._level = level
            self._line(level, coalesced)
