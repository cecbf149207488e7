"""Whether spinning pays on this host just now, by comparison.

While nothing interrupts the spinner, spinning pays, and nothing is compared. If others use its CPU as well, the
answer depends on who they are. Beside a program that computes on every CPU, a spinner that is interrupted often
can still halve the time of a request. Beside another machine that spins, it makes both machines slower, even if
each of them would be faster if it alone spun. So three rules hold:

- A spinner that is interrupted too often spins no more, until a comparison has shown that this pays.
- A comparison measures the time per request while it spins and while it does not, one slot each.
- All machines of the host compare at the same time, in the first slots of each period of the monotonic clock.
  So a machine measures what it costs if all of them spin, and what it costs if none does.

Everything here is a number that is passed in: there is no clock, no process and no CPU.
"""

from __future__ import annotations

from typing import Final, Literal

SLOT_BITS: Final = 24
"""A slot has 2 to the power of so many ns, some 17 ms: several turns of the scheduler."""

PERIOD: Final = 64
"""How many slots a period has, some 1.1 s: the first one spins, the second one does not."""

PATIENCE: Final = 3
"""After how many short stints a comparison has to show whether spinning pays."""

LONG_STINT_NS: Final = 25_000_000
"""A spinner that was not interrupted for so long has its CPU nearly for itself."""


class SpinTrials:
    """The comparisons of one machine. `answered` is always the count of requests of who is asked most."""

    def __init__(self) -> None:
        self._patience = PATIENCE
        self._pays_until = 0
        self._trial: Literal["none", "spinning", "sleeping"] = "none"
        self._slot = 0  # of the trial, and when it began, and at which request
        self._began = 0
        self._first = 0
        self._cost_of_spinning = 0.0

    def allow(self, now: int) -> bool:
        """Whether there may be a spinner at `now`."""
        if self._trial != "none":
            return self._trial == "spinning"
        return self._patience > 0 or now < self._pays_until

    def interrupted(self, now: int, since: int) -> None:
        """The spinner has spun since `since`, and something else has its CPU now."""
        if now - since >= LONG_STINT_NS:
            self._patience = PATIENCE
        elif self._trial == "none" and now >= self._pays_until and self._patience > 0:
            self._patience -= 1

    def abandon(self) -> None:
        """Requests are counted anew from now on."""
        self._trial = "none"

    def step(self, now: int, answered: int) -> None:
        """End the trial whose slot is over, and begin the one whose slot this is. To be called often."""
        slot = now >> SLOT_BITS
        if self._trial != "none":
            if slot == self._slot:
                return
            self._end(now, answered, slot)
        if slot % PERIOD == 0 and self._patience == 0:
            self._begin("spinning", now, answered)

    def _begin(self, trial: Literal["spinning", "sleeping"], now: int, answered: int) -> None:
        self._trial = trial
        self._slot = now >> SLOT_BITS
        self._began = now
        self._first = answered

    def _end(self, now: int, answered: int, slot: int) -> None:
        trial, self._trial = self._trial, "none"
        requests = answered - self._first
        if requests <= 0 or slot != self._slot + 1:
            return  # nobody asks: there is nothing to compare
        cost = (now - self._began) / requests
        if trial == "spinning":
            self._cost_of_spinning = cost
            self._begin("sleeping", now, answered)
        elif 5 * self._cost_of_spinning < 4 * cost:
            # Until the next comparison is done.
            self._pays_until = (slot // PERIOD + 1) * PERIOD + 2 << SLOT_BITS
