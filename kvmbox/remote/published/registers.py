"""The registers of a device that publishes memory: what the VMM does at an access, beside asking the device.

Where a ring is the guest says by its writes to registers. The VMM notes these (`Watch`) before the device
process sees them. Which registers that are, and whether some are the VMM's to answer, is the chip's:
`devices/CHIP/vmm.py` has a subclass.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.published.queues import DeviceQueues


class Registers:
    """The accesses of `size` bytes to device number `index` behind `channel`, which has these queues. By
    vCPU threads.
    """

    def __init__(
        self, channel: Channel, index: int, queues: DeviceQueues, size: int, noted: Container[int]
    ) -> None:
        self.channel = channel
        self.index = index
        self.noted = noted
        """The registers where `access` is more than that of the channel: `fast.vmm` looks at this."""
        self.queues = queues
        self.size = size

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """As `Channel.access`. Raises DeviceProcessError."""
        raise NotImplementedError

    def read_string(self, offset: int, count: int) -> bytes:
        """See DirectDevice. Raises DeviceProcessError."""
        return self.channel.read_string(self.index, offset, self.size, count)

    def write_string(self, offset: int, data: bytes) -> None:
        """See DirectDevice. Raises DeviceProcessError."""
        size = self.size
        values = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
        made = [self._write(offset, value) for value in values]
        if not all(made):
            self.channel.write_string(self.index, offset, size, data)

    def _write(self, offset: int, value: int) -> bool:
        """The guest writes to a register, which is noted. False: the device has to see it."""
        raise NotImplementedError

    def _do(self, act: Callable[[], object]) -> None:
        def under_lock() -> Sequence[Any]:
            act()
            return ()

        self.channel.serve(under_lock)
