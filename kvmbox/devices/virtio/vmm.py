"""The VMM's side of a device with virtqueues: what holds its queues, and the accesses to its registers.

A write that may publish a queue is noted (`register_watch`), and then made. A notification is a walk of the
queue, if the device wants its chains: they come in place of the write. What an interrupt is for, and its
acknowledgement, are the VMM's: InterruptStatus and InterruptACK over MMIO, and over PCI a register whose read
acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kvmbox.base.compiled import compiled as compiled_class
from kvmbox.base.compiled import kind
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.device_spec import Queues
from kvmbox.devices.virtio.register_watch import (
    INTERRUPT_ACK,
    INTERRUPT_STATUS,
    LEGACY_ISR,
    NOTED,
    SERVED,
    VirtqueueWatch,
    notified,
)
from kvmbox.devices.virtio.registers import ISR
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.remote.published.registers import Registers
from kvmbox.wire import protocol


class Virtqueues(DeviceQueues):
    """The virtqueues of one device."""

    def __init__(self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool]) -> None:
        super().__init__(grant, ram, come_by, VirtqueueWatch(grant.count, grant.initial_size))


class VirtioRegisters(Registers):
    """The accesses of one size, of a transport's registers."""

    def __init__(self, channel: Channel, index: int, queues: DeviceQueues, size: int) -> None:
        super().__init__(channel, index, queues, size, NOTED[size] | SERVED[size])

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


def queues_of(
    grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool], *, compiled: bool
) -> Virtqueues:
    """See `remote.published.registers.Side`."""
    chosen: type[Virtqueues] = compiled_class("queues", "CompiledQueues") if compiled else Virtqueues
    return chosen(grant, ram, come_by)


def registers_of(channel: Channel, index: int, queues: DeviceQueues) -> dict[int, Registers]:
    """See `remote.published.registers.Side`."""
    chosen = kind(VirtioRegisters, "queues", "CompiledRegisters")
    return {size: chosen(channel, index, queues, size) for size in NOTED}
