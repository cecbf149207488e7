"""The VMM's side of a device with virtqueues: what holds its queues, and the accesses to its registers.

A write that may publish a queue is noted (`register_watch`), and then made. A notification is a walk of the
queue, if the device wants its chains: they come in place of the write. What an interrupt is for, and its
acknowledgement, are the VMM's: InterruptStatus and InterruptACK over MMIO, and over PCI a register whose read
acknowledges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Any, Final

from kvmbox.base.compiled import compiled as compiled_class
from kvmbox.base.compiled import kind
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import EVENT_INDEX
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.ring_shape import VIRTIO_SPLIT
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
from kvmbox.remote.published.walker import Memory, PublishedRing
from kvmbox.remote.transport.memory_barrier import fence
from kvmbox.wire import protocol

_USED: Final = Struct("<II")  # descriptor, bytes written: 2.7.8
_NO_INTERRUPT: Final = 1  # of the available ring's flags: 2.7.7
_NO_NOTIFY: Final = 1  # of the used ring's flags: 2.7.10
_INDEX: Final = 2  # of both rings: behind the flags, before the entries
_ENTRIES: Final = 4
_WRAP: Final = 0xFFFF


class Virtqueue(PublishedRing):
    """A split virtqueue (VIRTIO 1.2, section 2.7)."""

    def __init__(
        self, memory: Memory, size: int, flags: int, descriptors: int, available: int, used: int
    ) -> None:
        """See PublishedRing. Raises RingError."""
        self.available = available
        self.used = used
        super().__init__(memory, VIRTIO_SPLIT, size, flags, descriptors, available, used)

    def announced(self) -> int:
        """See PublishedRing."""
        return self.memory.load16(self.available + _INDEX)

    def give_back_together(self, chains: Sequence[tuple[int, int]]) -> None:
        """Put chains into the used ring: of each, the device has written so many bytes."""
        for index, chain in enumerate(chains, self.next_used):
            place = self.used + _ENTRIES + _USED.size * (index % self.size)
            self.memory.write(place, _USED.pack(*chain))
        self.next_used = self.next_used + len(chains) & _WRAP
        self.memory.store16(self.used + _INDEX, self.next_used)

    def wants_interrupt(self, count: int = 1) -> bool:
        """See PublishedRing."""
        fence()  # their index is to be seen before the driver's wish is looked at
        if self.flags & EVENT_INDEX:
            event = self.memory.load16(self.available + _ENTRIES + 2 * self.size)
            return self.next_used - 1 - event & _WRAP < count
        return not self.memory.load16(self.available) & _NO_INTERRUPT

    def wants_notice(self, on: bool) -> None:
        """See PublishedRing."""
        if not self.flags & EVENT_INDEX:
            self.memory.store16(self.used, 0 if on else _NO_NOTIFY)
        elif on:  # else the index that is there is one that has passed
            self.memory.store16(self.used + _ENTRIES + _USED.size * self.size, self.next_available)
        fence()


class Virtqueues(DeviceQueues):
    """The virtqueues of one device."""

    def __init__(self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool]) -> None:
        super().__init__(grant, ram, come_by, VirtqueueWatch(grant.count, grant.initial_size))

    def new_ring(self, index: int, size: int, flags: int, *areas: int) -> PublishedRing:
        """See DeviceQueues."""
        del index
        return Virtqueue(self._ram, size, flags, *areas)


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
    """See `remote.published.queue_kinds`."""
    chosen: type[Virtqueues] = compiled_class("queues", "CompiledQueues") if compiled else Virtqueues
    return chosen(grant, ram, come_by)


def registers_of(channel: Channel, index: int, queues: DeviceQueues) -> dict[int, Registers]:
    """See `remote.published.queue_kinds`."""
    chosen = kind(VirtioRegisters, "queues", "CompiledRegisters")
    return {size: chosen(channel, index, queues, size) for size in NOTED}
