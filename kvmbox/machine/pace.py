"""How often the main thread looks around, slice by slice: often while something happens, rarely while not.

The main thread learns of deaths, deadlines, input, signals and the end of a run through descriptors. What it
has to look for by itself, once per slice, is: a request that a device process leaves unanswered, writes that
did not exit, a vCPU that is halted for ever, a stopped device process that nobody asks. With a slice of
50 ms, a look at the vCPU each 100 ms and a probe of each process each 200 ms, that costs an idle guest 0.9 %
of a CPU; each deadline of a device in between costs as much as a slice.

So once the vCPU has not exited for `LOOK_MS`, and nothing else is open, all of that gets rarer:

- Slices grow to `QUIET_SLICE_MS`, but only when the vCPU thread has promised to tell its next exit *before*
  it asks a device (`VcpuLoop.tells_next_exit`). So no request is ever open in a long slice, and the deadline
  of a request is as short as ever. A long slice ends when the vCPU thread tells.
- The look at a vCPU that was halted at the last one comes after twice the time, up to `MAX_LOOK_MS`. One that
  computes is looked at as often as before: it costs a CPU anyway, and may halt at any moment.
- Probes likewise, up to `MAX_PROBE_MS`. As soon as the guest uses a stopped process, its request's deadline
  counts.
- Writes that did not exit wait for the end of the slice: a guest that only ever prints on the debug console,
  and is woken by the local APIC's timer only, is shown `QUIET_SLICE_MS` late at most. Its output is something
  that happens, so what follows is shown sooner.
- A timer whose interrupt line is masked in every controller is told the time once per slice (`may_put_off`):
  nobody would hear its ticks. The model is as late as on a busy host, and counts what it folds together.

Time is counted in slices, never measured: a VMM that was suspended has missed some, and nobody else has.
"""

from __future__ import annotations

from typing import Final

from kvmbox.channel.channel import WAIT_SLICE_MS
from kvmbox.lean import Value

QUIET_SLICE_MS: Final = 200
"""A slice while nothing happens; while something does, it is `WAIT_SLICE_MS`."""

LOOK_MS: Final = 100
"""After how long without an exit the vCPU is looked at for the first time."""

MAX_LOOK_MS: Final = 1600
"""How long, at most, between two looks at a vCPU that stays halted."""

PROBE_MS: Final = 200
"""How often, while something happens, every device process is asked to answer."""

MAX_PROBE_MS: Final = 3200
"""The same while nothing does."""


class Chores(Value):
    """What is to be done at the end of a slice: kick the vCPU and look at it; probe the device processes."""

    look: bool
    probe: bool


class Pace:
    """Decides when one boot is looked at. By the main thread."""

    def __init__(self) -> None:
        self._exits = -1
        self._quiet_ms = 0
        self._look_in = self._look_every = LOOK_MS
        self._probe_in = self._probe_every = PROBE_MS

    def slice_ms(self, *, told: bool) -> int:
        """How long the slice that has begun is. `told`: the vCPU thread will tell its next exit."""
        return QUIET_SLICE_MS if told and self._quiet_ms >= LOOK_MS else WAIT_SLICE_MS

    def may_put_off(self, *, told: bool, halted: bool) -> bool:
        """Whether deadlines may be late that can do no more than move a line which is masked."""
        return halted and self.slice_ms(told=told) == QUIET_SLICE_MS

    def passed(self, milliseconds: int, *, exits: int, busy: bool, halted: bool) -> Chores:
        """A slice of this length is over. `exits`: of the guest, so far. `busy`: anything else happens, or a
        request is open. `halted`: at the last look the vCPU was.
        """
        moved, self._exits = exits != self._exits, exits
        if moved or busy:
            self._quiet_ms = 0
            self._look_every, self._probe_every = LOOK_MS, PROBE_MS
            self._look_in = min(self._look_in, LOOK_MS)
            self._probe_in = min(self._probe_in, PROBE_MS)
        else:
            self._quiet_ms += milliseconds
        # Output that has no room keeps the machine busy, but a vCPU beside it may be halted for ever.
        self._look_in = LOOK_MS if moved else self._look_in - milliseconds
        self._probe_in -= milliseconds
        look, probe = self._look_in <= 0, self._probe_in <= 0
        if look:
            if self._quiet_ms:
                self._look_every = min(2 * self._look_every, MAX_LOOK_MS) if halted else LOOK_MS
            self._look_in = self._look_every
        if probe:
            if self._quiet_ms:
                self._probe_every = min(2 * self._probe_every, MAX_PROBE_MS)
            self._probe_in = self._probe_every
        return Chores(look, probe)
