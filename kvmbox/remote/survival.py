"""What happens to a channel whose process fails. The default in this module does nothing, and the run ends.

`recovery` has the other variants. A survival belongs to one channel from the start, and is called under the
lock of the channel.
"""

from __future__ import annotations

from collections.abc import Callable

from kvmbox.errors import DeviceProcessError
from kvmbox.remote.journal import Journal


class ProcessControl:
    """The process behind a channel, as the channel sees it. Thread-safe.

    This class stands for no process: nothing is killed, and the process is never starved.
    """

    def killer(self) -> Callable[[DeviceProcessError], None]:
        """What kills the present process for a reason, and never a process that has replaced it by then.

        A thread that waits for a reply of the killed process then reads end of file.
        """
        return lambda _cause: None

    def starvation(self, waiter: int = 0) -> Callable[[], bool]:
        """Called when a reply is overdue. The result tells in each slice whether the process is starved, or
        the thread that waits for the reply: `waiter` is its `ident`, or 0 for the caller.
        """
        del waiter
        return lambda: False


class Survival:
    """The survival of a channel whose process is not replaced."""

    journal: Journal | None = None
    """An entry for each answered request, if `rescue` needs it."""

    def __init__(self, process: ProcessControl | None = None) -> None:
        self.process = process or ProcessControl()
        self.rescues = False
        """Whether `rescue` may be called."""
        self.being_connected = False
        """Whether a thread is connecting the channel to a process: its first one, or a replacement. Other
        threads then wait longer for the lock."""

    def attach(self, channel: object) -> None:
        """`channel` is the Channel that this belongs to. Called once, by its constructor."""

    def rescue(self, error: DeviceProcessError, sent: bytes) -> bytes:
        """Another reply to the open request `sent`. Raises DeviceProcessError if there is none."""
        raise error

    def journal_is_full(self) -> None:
        """The journal has reached its limit: take a snapshot. Raises DeviceProcessError."""

    def overdue(self, late: bool) -> None:
        """A reply is overdue by a whole slice (`late`), or no thread waits for the reply any more."""
