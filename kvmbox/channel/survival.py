"""What becomes of a channel when something is wrong with its process. Here: nothing, and the run ends.

`recovery` has the others. A survival belongs to one channel, from the start, and is called under its lock.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.channel.journal import Journal
from kvmbox.errors import DeviceProcessError


class ProcessControl:
    """The process behind a channel, as far as the channel has to do with it. Safe on any thread.

    This one is no process: nobody can kill it, and it is never starved.
    """

    def kill(self, cause: DeviceProcessError) -> None:
        """Kill it, for the reason given: who waits for a reply of it reads the end of its channel."""

    def starvation(self) -> Callable[[], bool]:
        """Asked when a reply is overdue: gives what tells, slice by slice, whether it `is_starved`."""
        return lambda: False


class Survival:
    """The survival of a channel that fails: what is lost stays lost."""

    journal: Journal | None = None
    """An entry for each request that was answered, where that is of use to `rescue`."""

    def __init__(self, process: ProcessControl | None = None) -> None:
        self.process = process or ProcessControl()
        self.rescues = False
        """Whether `rescue` may be called."""
        self.being_rescued = False
        """Whether another process is just being put in place: who waits for the lock has to be patient."""

    def attach(self, channel: object) -> None:
        """`channel` is the Channel that this belongs to. Called once, by its constructor."""

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        """Another reply to the open request `sent`. Raises DeviceProcessError if there is none."""
        raise error

    def journal_is_full(self) -> None:
        """The journal has got as much as it takes: time for a snapshot. Raises DeviceProcessError."""

    def overdue(self, late: bool) -> None:
        """A reply has been due for a whole slice; or nobody waits for it any more."""
