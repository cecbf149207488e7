"""Guest time that stands still, as the guest does: for a moment, or for a person who looks."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.run.machine.device_set import Devices

MAX_STEPS: Final = 256
"""More deadlines than the transmit FIFOs and time-outs of all UARTs can have."""


@contextmanager
def timeless(devices: Devices, rearm: Callable[[], None]) -> Iterator[None]:
    """Guest time stands still. No line is raised ahead, and models know of every deadline that has been.

    `rearm` is called when the clock has stopped, and when it goes on. Raises DeviceProcessError.
    """
    clock = devices.clock
    clock.pause()
    rearm()
    try:
        for channel in devices.pool.channels:
            if channel.deadline <= clock.now():
                channel.request(protocol.ADVANCE)
        yield
    finally:
        clock.resume()
        rearm()


def drain(devices: Devices, talkers: Collection[str], rearm: Callable[[], None]) -> None:
    """The guest has ended: send the characters that the paced UARTs of `talkers` still hold, without real
    waiting. For `rearm` see `timeless`. Raises DeviceProcessError.
    """
    with timeless(devices, rearm):
        for channel in devices.pool.channels:
            if channel.device_type not in talkers:
                continue
            for _ in range(MAX_STEPS):
                if channel.failure is not None or channel.deadline == protocol.NO_DEADLINE:
                    break
                devices.clock.skip_to(channel.deadline)
                channel.request(protocol.ADVANCE)


class PausedTime:
    """Guest time of one machine, which somebody stops and lets go on. It counts for no time-out."""

    def __init__(self) -> None:
        self._still = ExitStack()
        self._before = 0
        self._since: int | None = None

    @property
    def stands(self) -> bool:
        """Whether it stands now."""
        return self._since is not None

    @property
    def ns(self) -> int:
        """For how long it has stood in all, in ns of the host."""
        return self._before + (0 if self._since is None else time.monotonic_ns() - self._since)

    def stop(self, timeless: AbstractContextManager[object]) -> None:
        """Stop it, by `MainLoop.timeless`. Raises DeviceProcessError."""
        self._since = time.monotonic_ns()
        self._still.enter_context(timeless)

    def go_on(self) -> None:
        """Let it go on, if it stands."""
        self._before, self._since = self.ns, None
        self._still.close()
