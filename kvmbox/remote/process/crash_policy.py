"""What becomes of the loss of a device process. The default in this module does nothing, and the run ends.

A `Survival` belongs to one channel from the start, and is called under the lock of the channel. A
`LossPolicy` belongs to a pool, and gives each channel its survival. A part of a run may bring another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.base.errors import DeviceProcessError
from kvmbox.remote.channel.journal import Journal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from kvmbox.contract.device_spec import DeviceSpec
    from kvmbox.remote.process.spawner_client import DeviceProcess

Say = Callable[[str], None]
Forget = Callable[[int], None]


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


class LossPolicy:
    """The policy of a pool whose lost processes are not replaced. Called by the main thread."""

    @property
    def spare(self) -> DeviceProcess | None:
        """A process that is to replace another one, if there is one: it is watched like the others."""
        return None

    def survival(self, _devices: Sequence[DeviceSpec], process: ProcessControl) -> Survival:
        """The survival of the channel to `process`, which has these devices."""
        return Survival(process)

    def tend(self, say: Say, forget: Forget) -> bool:
        """Once a turn: tell of losses, and prepare for others. Whether there may be a process to watch.

        `forget` hears of each descriptor of a process that is watched, before it is closed.
        """
        return False

    def tell(self, say: Say, forget: Forget, *, waits: bool = False) -> None:
        """Tell of the losses so far. Those whose cause the spawner has not reported yet are left for later,
        unless it `waits`: a slow spawner must not keep the main thread.
        """

    def close(self) -> None:
        """Close what no channel has taken over."""
