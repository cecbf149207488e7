"""Moments at which all vCPUs of a machine stand still, each between two instructions, and who asked for them.

A visitor is somebody who looks at a machine that stands still: whoever takes snapshots, for example. A
visitor that wants to look says so on any thread, by `VcpuPause.call`: all vCPUs are asked to pause at once.
The main loop calls `turn` once a turn. When all vCPUs have paused, `turn` lets each visitor that wants to do
what it came for, and lets the vCPUs go on that no visitor holds.

A vCPU that waits for a device process pauses when the answer is there.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TYPE_CHECKING

from kvmbox.host.time.guest_clock import GuestClock

if TYPE_CHECKING:
    from kvmbox.base.outcome import Outcome
    from kvmbox.run.machine.one_boot import Boot
    from kvmbox.run.vcpu.run_state import VcpuControl


class Visitor:
    """Somebody who looks at a machine that stands still. Everything is called by the main loop's thread."""

    @property
    def stood_ns(self) -> int:
        """For how long, in ns of the host, the machine has stood still in a way that no time-out counts."""
        return 0

    @property
    def wants(self) -> bool:
        """Whether all vCPUs are to stand still, for `visit`."""
        return False

    def boot_begins(self, boot: Boot) -> None:
        """A boot begins; none of its vCPUs has started."""

    def boot_ends(self, boot: Boot, end: Outcome | None) -> None:
        """A boot is over, by a reset or by the `end` of the run, and its threads have ended.

        With None, the vCPUs must not be looked at: the guest is reset, or a thread does not end.
        """

    def slice(self) -> None:
        """Once per slice of the main loop, while a guest runs. Raises DeviceProcessError."""

    def tick(self, clock: GuestClock) -> None:
        """Once a turn, while a guest runs, before `wants` is asked: see whether the time has come."""

    def wake_in(self, clock: GuestClock) -> float | None:
        """In how many seconds at most `tick` is to be called; None: this visitor has no time to wait for."""
        return None

    def visit(self) -> Callable[[], None] | None:
        """All vCPUs stand still. Returns what is to be called after they were let go, if anything is.

        Afterwards `wants` is False, or `visit` is called again in the next turn.
        """
        return None

    def holds(self, _vcpu: VcpuControl) -> bool:
        """Whether this vCPU must not go on, although nobody wants all of them to stand still."""
        return False

    def hidden(self) -> AbstractContextManager[None]:
        """While it lasts, the machine is as the guest knows it: whatever the visitor has planted is gone."""
        return nullcontext()

    def stops(self, _end: Outcome) -> bool:
        """Whether a guest that has come to this end is to stand still instead, for this visitor."""
        return False

    def timed_out(self, boot: Boot) -> None:
        """The time of the run is over, and the vCPUs still run."""

    def watch(self, poll: select.poll) -> None:
        """Register the descriptors that the main loop is to poll for the visitor."""

    def handle(self, _descriptor: int) -> bool:
        """A descriptor is ready; whether it is one of the visitor's."""
        return False


class VcpuPause:
    """The visitors of one machine. `call` may be called by any thread; the rest belongs to the main loop."""

    def __init__(
        self, wake: Callable[[], None], summon: Callable[[Outcome], None] = lambda _outcome: None
    ) -> None:
        """`wake` makes the main loop take its next turn, and may be called by any thread. `summon` hears of
        the end before visitors do: it may admit one that is wanted for such ends only.
        """
        self._wake = wake
        self._summon = summon
        self.is_overtime = False
        """Whether visitors look at a guest whose time is over, and that still runs."""
        self._visitors: list[Visitor] = []
        self._vcpus: Sequence[VcpuControl] = ()

    @property
    def visitors(self) -> Sequence[Visitor]:
        """Those that were admitted."""
        return self._visitors

    @property
    def is_visited(self) -> bool:
        """Whether anybody wants to hear of each slice."""
        return any(type(one).slice is not Visitor.slice for one in self._visitors)

    def admit(self, visitor: Visitor) -> None:
        """Ask this one, too, from now on."""
        self._visitors.append(visitor)

    def begin(self, boot: Boot) -> None:
        """A boot begins. If somebody wants to look, no instruction comes before that."""
        self._vcpus = boot.vcpus
        for one in self._visitors:
            one.boot_begins(boot)
        for vcpu in boot.vcpus:
            if self._is_held(vcpu):
                vcpu.pause()

    def end(self, boot: Boot, end: Outcome | None) -> None:
        """The boot is over: see `Visitor.boot_ends`."""
        if end is not None:
            self._summon(end)
        for one in self._visitors:
            one.boot_ends(boot, end)

    def slice(self) -> None:
        """A slice is over: see `Visitor.slice`."""
        for one in self._visitors:
            one.slice()

    def time_out(self, boot: Boot | None, outcome: Outcome, decide: Callable[[], bool]) -> None:
        """The time of the run is over. If `decide` makes that its `outcome`, visitors look where the guest
        is, which goes on meanwhile.
        """
        self.is_overtime = True
        try:
            if decide() and boot is not None:
                self._summon(outcome)
                for one in self._visitors:
                    one.timed_out(boot)
        finally:
            self.is_overtime = False

    @property
    def stood_ns(self) -> int:
        """For how long the machine has stood still for visitors whose looks take no time of the run."""
        return sum(one.stood_ns for one in self._visitors)

    def hidden(self) -> ExitStack:
        """While it lasts, the machine is as the guest knows it."""
        stack = ExitStack()
        for one in self._visitors:
            stack.enter_context(one.hidden())
        return stack

    def stops(self, end: Outcome) -> bool:
        """Whether a visitor wants the guest to stand still instead of ending."""
        return any(one.stops(end) for one in self._visitors)

    def watch(self, poll: select.poll) -> None:
        """Register what visitors want to have polled."""
        for one in self._visitors:
            one.watch(poll)

    def handle(self, descriptor: int) -> bool:
        """Give a ready descriptor to the visitor whose it is; whether there is one."""
        return any(one.handle(descriptor) for one in self._visitors)

    def call(self) -> None:
        """Ask all vCPUs to pause: a visitor wants to look. Thread-safe."""
        for vcpu in self._vcpus:
            vcpu.pause()
        self._wake()

    def wake_in(self, clock: GuestClock) -> float | None:
        """In how many seconds at most the main loop must take its next turn; None: whenever."""
        times = [time for one in self._visitors if (time := one.wake_in(clock)) is not None]
        return min(times, default=None)

    def turn(self, clock: GuestClock) -> None:
        """Once a turn of the main loop, while a guest runs. Raises what a visitor raises."""
        for one in self._visitors:
            one.tick(clock)
        if not any(one.wants for one in self._visitors):
            return
        moving = [vcpu for vcpu in self._vcpus if not vcpu.is_paused]
        for vcpu in moving:
            vcpu.pause()  # again, as another look may have let it go
        if moving:
            return
        unfinished = []
        try:
            for one in self._visitors:
                if one.wants and (finish := one.visit()) is not None:
                    unfinished.append(finish)
        finally:
            self.let_go()
            with ExitStack() as all_of_them:  # also if one of them raises
                for finish in reversed(unfinished):
                    all_of_them.callback(finish)

    @property
    def is_held(self) -> bool:
        """Whether a vCPU is kept from going on: it says nothing about the guest that it does not."""
        return any(self._is_held(vcpu) for vcpu in self._vcpus)

    def let_go(self) -> None:
        """Let all vCPUs go on that nobody holds."""
        for vcpu in self._vcpus:
            if not self._is_held(vcpu):
                vcpu.resume()

    def _is_held(self, vcpu: VcpuControl) -> bool:
        return any(one.wants or one.holds(vcpu) for one in self._visitors)
