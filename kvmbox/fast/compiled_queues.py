"""Virtqueues, and the accesses to a device that has some, with their compiled halves: see
`queues.pxi`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvmbox.base.memory import GuestMemory
from kvmbox.contract import bulk_data
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.ring_shape import VIRTIO_SPLIT
from kvmbox.devices.virtio.register_watch import NOTIFIES, NUMBERED
from kvmbox.devices.virtio.vmm import VirtioRegisters, Virtqueue, Virtqueues
from kvmbox.fast.compiled_channel import CompiledChannel
from kvmbox.fast.vmm import QueueAccessCore, QueuesCore, VirtqueueCore, learn_queues
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS
from kvmbox.remote.published import queue_interrupts, walker
from kvmbox.remote.published.queues import MOST_MOVED, DeviceQueues
from kvmbox.remote.published.walker import PublishedRing
from kvmbox.wire import chains, effects

learn_queues(bulk_data, effects, walker, VIRTIO_SPLIT, chains, queue_interrupts)


_NOWHERE = (1 << 64) - 1
"""No register is there: accesses of this size notify nobody."""


class CompiledVirtqueue(VirtqueueCore, Virtqueue):
    """A ring that compiled code walks."""


class CompiledQueues(QueuesCore, Virtqueues):
    """Queues in guest memory that compiled code reaches. In other memory they are Python's."""

    most_rounds = MAX_FOLLOW_UPS - 1
    most_moved = MOST_MOVED
    send_from_python = Virtqueues.send_from
    put_into_python = Virtqueues.put_into

    def __init__(self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool]) -> None:
        super().__init__(grant, ram, come_by)
        self._is_reached = isinstance(ram, GuestMemory)
        self.set_up(*((ram.regions, ram.video) if self._is_reached else (None, None)))

    def new_ring(self, index: int, size: int, flags: int, *areas: int) -> PublishedRing:
        """See DeviceQueues."""
        if not self._is_reached:
            return super().new_ring(index, size, flags, *areas)
        found: PublishedRing = self.ring_at(CompiledVirtqueue(self._ram, size, flags, *areas))
        return found


class CompiledRegisters(QueueAccessCore, VirtioRegisters):
    """Accesses whose notifications are compiled."""

    pure_access = VirtioRegisters.access

    def __init__(self, channel: Channel, index: int, queues: DeviceQueues, size: int) -> None:
        super().__init__(channel, index, queues, size)
        own: Any = channel.media(index)
        if isinstance(channel, CompiledChannel) and isinstance(queues, CompiledQueues):
            self.set_up(channel, queues, index, own.by_number, NOTIFIES.get(size, _NOWHERE), NUMBERED)
