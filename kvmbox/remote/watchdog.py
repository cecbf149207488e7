"""The deadline of the vCPU thread's requests, kept by the main thread in counted slices.

`Watchdog.tick` is called once per slice. A request that is still the open one of its channel slice after
slice is hung; a suspended VMM does not tick, so it does not misfire when it wakes.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.remote.channel import REPLY_SLICES, Channel


class Watchdog:
    """Counts for each channel how many slices its open request has been the same."""

    def __init__(self, channels: Sequence[Channel], limit: int = REPLY_SLICES) -> None:
        self._limit = limit
        self._open = dict.fromkeys(channels, (0, 0))

    def tick(self) -> Channel | None:
        """One slice has passed; returns a channel whose request went unanswered for too long, or None."""
        hung: Channel | None = None
        for channel, (sequence, slices) in self._open.items():
            waiting = channel.waiting
            unanswered = slices + 1 if waiting and waiting == sequence else 0
            if unanswered >= self._limit:
                hung = channel
            self._open[channel] = (waiting, unanswered)
        return hung
