"""The accesses to a device with virtqueues: those to the registers that the VMM notes, or answers for.

A write that may publish a queue is noted, and then made. A notification is a walk of the queue, if the device
wants its chains: they come in place of the write. What an interrupt is for, and its acknowledgement, are the
VMM's: InterruptStatus and InterruptACK over MMIO, and over PCI a register whose read acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from functools import partial
from typing import Any

from kvmbox.devices.virtio.registers import ISR
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.published.queue_notes import (
    INTERRUPT_ACK,
    INTERRUPT_STATUS,
    LEGACY_ISR,
    NOTED,
    SERVED,
    notified,
)
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.wire import protocol


class QueueAccess:
    """The accesses of `size` bytes to device number `index` behind `channel`, which has these queues. By
    vCPU threads.
    """

    def __init__(self, channel: Channel, index: int, queues: DeviceQueues, size: int) -> None:
        self.channel = channel
        self.index = index
        self.noted: Container[int] = NOTED[size] | SERVED[size]
        """The registers where `access` is more than that of the channel: `fast.vmm` looks at this."""
        self.queues = queues
        self.size = size

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """As `Channel.access`. Raises DeviceProcessError."""
        if word & 0xFF == protocol.WRITE:
            if self._write(offset, value):
                return 0
        elif (found := self._read(offset)) is not None:
            return found
        return self.channel.access(word, offset, value, limit)

    def read_string(self, offset: int, count: int) -> bytes:
        """See DirectDevice. Raises DeviceProcessError."""
        if self._read(offset) is None:
            return self.channel.read_string(self.index, offset, self.size, count)
        found = [self._read(offset) or 0 for _ in range(count)]
        return b"".join([one.to_bytes(self.size, "little") for one in found])

    def write_string(self, offset: int, data: bytes) -> None:
        """See DirectDevice. Raises DeviceProcessError."""
        size = self.size
        values = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
        made = [self._write(offset, value) for value in values]
        if not all(made):
            self.channel.write_string(self.index, offset, size, data)

    def _read(self, offset: int) -> int | None:
        """What a read gives, or None: that is the device's."""
        interrupts = self.queues.interrupts
        if self.channel.failure is not None or offset not in self.noted:
            return None
        if offset == INTERRUPT_STATUS:
            return interrupts.status
        found: list[int] = []
        if offset in (ISR, LEGACY_ISR):
            self._do(lambda: found.append(interrupts.take()))
        return found[0] if found else None

    def _write(self, offset: int, value: int) -> bool:
        """The guest writes to a register. False: the device has to see it."""
        if offset not in self.noted:
            return False
        index = notified(offset, self.size, value)
        if index is not None:
            return self._notify(index)
        if offset == INTERRUPT_ACK:
            self._do(partial(self.queues.interrupts.acknowledge, value))
            return True
        self._do(partial(self.queues.note, offset, value, self.size))
        return False

    def _notify(self, index: int) -> bool:
        found: list[Any] = []

        def under_lock() -> Sequence[Any]:
            found.extend(self.queues.notified(index))
            return found

        self.channel.serve(under_lock)
        return bool(found)

    def _do(self, act: Callable[[], object]) -> None:
        def under_lock() -> Sequence[Any]:
            act()
            return ()

        self.channel.serve(under_lock)
