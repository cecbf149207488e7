"""The states of a vCPU, and how any thread changes them.

    CREATED   no thread runs it yet
    RUNNING   its thread runs the guest, or handles an exit
    STANDING  its thread waits between two instructions, until `resume`
    STOPPED   the same, at an exit that is a debugger's business: `proceed` makes it STANDING
    ENDED     its thread has ended

There are requests and events. Any thread may make a request at any time, and a request by itself moves
nothing: `pause`, `observe` and `leave` set a bit of `attention`. The run loop checks this integer between two
exits, and nothing else. Then its thread takes the event. `resume` and `proceed` are events of the requesting
thread, where the state has such an event; elsewhere they do nothing, but that `resume` withdraws a `pause`.
`Event` has all of them. Each change is made under one lock.

The answers are the state, `in_access` and `announces_exit`. Any thread may read them. `notify` is called when
the vCPU stands still, and when an announced exit comes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvmbox.base.light_typing import Enum

PAUSE: Final = 1  # bits of attention: stand still between two instructions, until `resume`
LEAVE: Final = 2  # end the loop
_ENTER: Final = 4  # by the loop itself: choose anew how the guest is entered
OBSERVE: Final = 8  # show the next accesses to the observer, as long as it wants to see them

Access = tuple[str, int, int]
"""What an exit was for: "in", "out", "read" or "write", the port or address, and the size in bytes."""

Observer = Callable[[Access], bool]
"""Is shown an access by the thread of the vCPU, between the instruction that made it and the next one.
Returns whether it wants to see another one.
"""


class VcpuState(Enum):
    """Where a vCPU is between its creation and its end."""

    CREATED = "created"
    RUNNING = "running"
    STANDING = "standing"
    STOPPED = "stopped"
    ENDED = "ended"


class Event(Enum):
    """The table of transitions: what changes the state of a vCPU, from which states and to which one. START,
    PROCEED and RESUME are the main thread's, the others the vCPU's own.
    """

    START = (VcpuState.CREATED,), VcpuState.RUNNING
    STAND = (VcpuState.RUNNING,), VcpuState.STANDING
    STOP = (VcpuState.RUNNING,), VcpuState.STOPPED
    PROCEED = (VcpuState.STOPPED,), VcpuState.STANDING
    RESUME = (VcpuState.STANDING,), VcpuState.RUNNING
    LEAVE = (VcpuState.STANDING, VcpuState.STOPPED), VcpuState.RUNNING
    END = (VcpuState.RUNNING, VcpuState.STANDING, VcpuState.STOPPED), VcpuState.ENDED


class Attention:
    """`bits` are the requests that the run loop has not finished with: all that it checks at each exit."""

    bits = 0


class VcpuControl:
    """The state of one vCPU, and the requests to it. Thread-safe but for what belongs to its own thread."""

    def __init__(self, attention: Attention, kick: Callable[[], None], notify: Callable[[], None]) -> None:
        """`kick` makes the run loop check `attention` now, even if the guest is halted or spinning. `notify`
        is called by the vCPU's thread.
        """
        self.attention = attention
        self._kick = kick
        self._notify = notify
        self._changed = threading.Condition()
        self._observer: Observer | None = None
        self.state = VcpuState.CREATED
        self.in_access = False
        """Of a vCPU that stands: whether it had an exit to handle when it was asked to pause."""
        self.announces_exit = False
        """Whether `notify` is called for the next exit, before it is handled."""

    def move(self, event: Event) -> None:
        """Change the state by an event. Raises ValueError if the present state has no such event."""
        with self._changed:
            sources, target = event.value
            if self.state not in sources:
                raise ValueError(f"a vCPU that is {self.state.value} has no event {event.name}")
            self.state = target
            self._changed.notify_all()

    @property
    def is_alive(self) -> bool:
        """Whether the vCPU has been started and has not ended."""
        return self.state not in (VcpuState.CREATED, VcpuState.ENDED)

    @property
    def is_paused(self) -> bool:
        """Whether the vCPU does not run, so that any thread may read its registers."""
        return self.state is not VcpuState.RUNNING

    # --- Requests, by any thread --------------------------------------------------------------------------

    def pause(self) -> None:
        """Let the vCPU stand still as soon as its last exit is complete."""
        self._ask(PAUSE)
        self._kick()

    def leave(self) -> None:
        """End the run loop at the next exit, and cause this exit now, even if the vCPU stands."""
        self._ask(LEAVE)
        self._kick()

    def observe(self, observer: Observer) -> None:
        """Show the next accesses to `observer`. The loop notices at the next exit: this needs no kick."""
        self._observer = observer
        self._ask(OBSERVE)

    def resume(self) -> None:
        """Let a vCPU that stands run again, or withdraw a `pause` that it has not seen yet."""
        with self._changed:
            self.attention.bits &= ~PAUSE
            self.in_access = False
            if self.state is VcpuState.STANDING:
                self.move(Event.RESUME)

    def proceed(self) -> None:
        """End a stop: the next `resume` lets the vCPU run."""
        with self._changed:
            if self.state is VcpuState.STOPPED:
                self.move(Event.PROCEED)

    def _ask(self, bit: int) -> None:
        with self._changed:
            self.attention.bits |= bit
            self._changed.notify_all()

    # --- The vCPU's own thread ----------------------------------------------------------------------------

    def obey(self, settle: Callable[[], None] | None) -> bool:
        """Do what `attention` asks for: stand still until `resume`. Return whether the vCPU is to leave.

        A vCPU stands, and is observed, only when KVM has completed the instruction of the last exit, so that
        registers and memory are those of a moment between two instructions. If that is still to do, `settle`
        is called, and prepares it.
        """
        with self._changed:
            while not self.attention.bits & LEAVE:
                if settle is not None and self.attention.bits & (PAUSE | OBSERVE):
                    self.in_access = True
                    settle()
                    return False
                if not self.attention.bits & PAUSE:
                    break
                self._stand(Event.STAND)
                self.announces_exit = True
            leaves = bool(self.attention.bits & LEAVE)
            self.attention.bits &= OBSERVE
            self.in_access = False
            return leaves

    def stop(self) -> bool:
        """Stand still until `proceed` and `resume`. Return whether the vCPU is to leave instead."""
        with self._changed:
            if not self.attention.bits & LEAVE:
                self._stand(Event.STOP)
            return bool(self.attention.bits & LEAVE)

    def _stand(self, event: Event) -> None:
        self.move(event)
        self._notify()
        self._changed.wait_for(lambda: self.state is VcpuState.RUNNING or self.attention.bits & LEAVE)
        if self.state is not VcpuState.RUNNING:
            self.move(Event.LEAVE)

    def announce(self) -> None:
        """The announced exit has come."""
        # In this order: the main thread, once it is woken, must not see the old promise.
        self.announces_exit = False
        self._notify()
        self._ask(_ENTER)

    def show(self, access: Access) -> None:
        """KVM has completed this access: show it to the observer."""
        with self._changed:
            self.attention.bits &= ~OBSERVE
            observer = self._observer
        # Another thread may ask for more as soon as the observer has had enough.
        if observer is not None and observer(access):
            self.observe(observer)
