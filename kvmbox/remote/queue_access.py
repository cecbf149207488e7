"""The writes to a device with virtqueues: those that may publish a queue are noted, and then made."""

from __future__ import annotations

from functools import partial

from kvmbox.remote.channel import Channel
from kvmbox.remote.queue_notes import NOTED
from kvmbox.remote.queues import DeviceQueues


class QueueAccess:
    """The writes of `size` bytes to the device behind `channel` that has these queues. By vCPU threads."""

    def __init__(self, channel: Channel, queues: DeviceQueues, size: int) -> None:
        self.channel = channel
        self.noted = NOTED[size]
        """The registers where `access` is more than that of the channel: `fast.vmm` looks at this."""
        self._queues = queues
        self._size = size

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """As `Channel.access`. Raises DeviceProcessError."""
        self.note(offset, value)
        return self.channel.access(word, offset, value, limit)

    def note(self, offset: int, *values: int) -> None:
        """The guest writes these values to a register, one after another."""
        if offset in self.noted:
            for value in values:
                self.channel.serve(partial(self._queues.note, offset, value, self._size))
