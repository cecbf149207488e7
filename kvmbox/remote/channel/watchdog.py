"""The deadline of the vCPU thread's requests. The main thread counts it in slices.

`Watchdog.tick` is called once per slice. If a request is still open after a number of slices, its process is
hung, unless the process, or the thread that waits for the reply, is starved of CPU time
(`host.time.starvation`). A suspended VMM does not tick, so the watchdog does not misfire when the VMM
continues.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.base.errors import DeviceProcessError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES, START_SLICES, hung_error


class _Open:
    """The open request of a channel, as the last tick saw it."""

    def __init__(self) -> None:
        self.sequence = 0
        self.slices = 0
        self.is_starved: Callable[[], bool] | None = None


class Watchdog:
    """Counts for each channel how many slices its open request has been the same."""

    def __init__(self, channels: Sequence[Channel], limit: int = REPLY_SLICES) -> None:
        self._limit = limit
        self._open = {channel: _Open() for channel in channels}
        self._kill: Callable[[DeviceProcessError], None] | None = None

    def tick(self) -> Channel | None:
        """One slice has passed; returns a channel whose request went unanswered for too long, or None."""
        hung: Channel | None = None
        self._kill = None
        for channel, request in self._open.items():
            waiting = channel.waiting
            if not waiting or waiting != request.sequence:
                if request.slices:
                    channel.survival.overdue(False)
                request.sequence, request.slices, request.is_starved = waiting, 0, None
                continue
            request.slices += 1
            if request.slices == 1:
                channel.survival.overdue(True)
            if request.slices >= self._limit and not self._is_starved(channel, request):
                kill = channel.survival.process.killer()
                # A rescue ends `waiting` before it replaces the process: while the request is open, this is
                # the process that does not answer it. A reply that has come meanwhile ends it as well.
                if channel.waiting == waiting:
                    hung, self._kill = channel, kill
        return hung

    def kill(self, channel: Channel) -> None:
        """Kill the process that the last `tick` found hung, which belongs to `channel`. If another process
        has replaced it since then, nothing happens.
        """
        assert self._kill is not None
        self._kill(hung_error(channel.device_type))

    def _is_starved(self, channel: Channel, request: _Open) -> bool:
        if request.slices >= START_SLICES:
            return False
        if request.is_starved is None:
            request.is_starved = channel.survival.process.starvation(channel.waiter)
        return request.is_starved()
