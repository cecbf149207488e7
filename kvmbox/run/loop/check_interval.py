"""How often the main thread makes its checks: often while something happens, rarely while the guest is idle.

The main thread learns of deaths, deadlines, input, signals and the end of a run through descriptors. It has
to check the following by itself, once per slice: a request that a device process leaves unanswered, writes
that did not exit, a vCPU that is halted for ever, and a stopped device process that gets no requests. With
slices of 50 ms and an examination of the vCPUs each 100 ms, the checks use almost 1 % of a CPU for an idle
guest. Each deadline of a device in between costs as much as a slice.

If no vCPU has exited for `LOOK_MS`, and nothing else is open, the checks become rarer:

- Slices grow to `QUIET_SLICE_MS`. The condition is that each vCPU thread has promised to announce its next
  exit *before* it asks a device (`VcpuControl.announces_exit`). So no request is ever open during a long
  slice, and the deadline of a request does not grow. A long slice ends with the announcement.
- If all vCPUs were halted at the last examination, the next one comes after twice the time, up to
  `MAX_LOOK_MS`. A guest with a vCPU that computes is examined as often as before, because this vCPU may halt
  at any moment, and uses a CPU anyway.
- The time between probes doubles as well, up to `MAX_PROBE_MS`. If the guest uses a stopped process, the
  deadline of the request applies.
- After `DEEP_MS` more of it, with vCPUs that were halted at the last look, slices grow to `DEEP_SLICE_MS`.
  Each wake-up costs 150 to 500 µs, most of it for caches that are cold, so their number is what an idle guest
  costs.
- Where only lines that kvmbox raises can wake the guest (`idle`), slices are as long as the time
  between two looks. What waits for a masked line waits on.
- Writes that did not exit wait for the end of the slice. So the output of a guest that only prints on the
  debug console, and is woken only by the timer of the local APIC, appears at most `DEEP_SLICE_MS` late.
  Output counts as activity, so the following output appears sooner.
- A timer whose interrupt line is masked in every controller is advanced with the next probe (`may_put_off`),
  because the guest cannot notice its ticks. If the line is no longer masked at the end of a slice, the timer
  is advanced then. The model is as late as on a busy host, and counts the ticks that it combines. Slices are
  `QUIET_SLICE_MS` long at most while a timer waits, or somebody looks at each slice.

Time is counted in slices, and never measured. So a VMM that was suspended has only missed some slices.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base.value_classes import Value
from kvmbox.remote.channel.deadlines import WAIT_SLICE_MS

QUIET_SLICE_MS: Final = 200
"""A slice while nothing happens; while something does, it is `WAIT_SLICE_MS`."""

DEEP_SLICE_MS: Final = 400
"""A slice after nothing has happened for `DEEP_MS`, in a machine that was halted when it was looked at."""

DEEP_MS: Final = 2000

LOOK_MS: Final = 100
"""After how long without an exit the vCPUs are looked at for the first time."""

MAX_LOOK_MS: Final = 3200
"""How long, at most, between two looks at vCPUs that stay halted."""

PROBE_MS: Final = 1000
"""How often, while something happens, every device process is asked to answer. Each probe delays the guest:
the process runs on the CPU of its vCPU.
"""

MAX_PROBE_MS: Final = 3200
"""The same while nothing does."""


class Chores(Value):
    """To be done at the end of a slice: pause the vCPUs and look at them; probe the device processes."""

    examine: bool
    probe: bool


class CheckInterval:
    """Decides when the checks of one boot are made. Belongs to the main thread."""

    def __init__(self) -> None:
        self._exits = -1
        self._quiet_ms = 0
        self._halted = False
        self._look_in = self._look_every = LOOK_MS
        self._probe_in = self._probe_every = PROBE_MS

    def slice_ms(self, *, announced: bool, owes: bool = False, sound: bool = False) -> int:
        """How long the slice that has begun is. `announced`: each vCPU will announce its next exit. `owes`:
        somebody waits for its end. `sound`: only kvmbox can wake the guest.
        """
        if not announced or self._quiet_ms < LOOK_MS:
            return WAIT_SLICE_MS
        if sound and self._halted and self._quiet_ms >= DEEP_MS:
            return MAX_LOOK_MS
        return DEEP_SLICE_MS if self._halted and not owes and self._quiet_ms >= DEEP_MS else QUIET_SLICE_MS

    def may_put_off(self, *, announced: bool, halted: bool) -> bool:
        """Whether deadlines may be late that can do no more than move a line which is masked."""
        return halted and self.slice_ms(announced=announced) != WAIT_SLICE_MS

    def passed(self, milliseconds: int, *, exits: int, busy: bool, halted: bool) -> Chores:
        """A slice of this length is over. `exits`: of the guest, so far. `busy`: anything else happens, or a
        request is open. `halted`: at the last look all vCPUs were.
        """
        self._halted = halted
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
        examine, probe = self._look_in <= 0, self._probe_in <= 0
        if examine:
            if self._quiet_ms:
                self._look_every = min(2 * self._look_every, MAX_LOOK_MS) if halted else LOOK_MS
            self._look_in = self._look_every
        if probe:
            if self._quiet_ms:
                self._probe_every = min(2 * self._probe_every, MAX_PROBE_MS)
            self._probe_in = self._probe_every
        return Chores(examine, probe)
