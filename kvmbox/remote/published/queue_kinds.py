"""The queues that the grant of a device means, virtqueues or rings of descriptors, and the accesses to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kvmbox.base.compiled import kind
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.device_spec import DescriptorRings, Queues
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.published.queue_access import QueueAccess
from kvmbox.remote.published.queue_notes import NOTED
from kvmbox.remote.published.queues import DeviceQueues


def queues_of(
    grant: Queues,
    ram: GuestMemory,
    come_by: Callable[[Settle], bool],
    virtqueues: type[DeviceQueues] = DeviceQueues,
) -> DeviceQueues:
    """What a grant wants; virtqueues are of that class. `come_by` is that of `DeviceQueues`."""
    if not isinstance(grant, DescriptorRings):
        return virtqueues(grant, ram, come_by)
    from kvmbox.remote.published.descriptor_rings import DescriptorQueues

    return DescriptorQueues(grant, ram, come_by)


def queue_accesses(channel: Channel, index: int, queues: DeviceQueues) -> Mapping[int, QueueAccess]:
    """What makes the accesses to device number `index` behind `channel`, of the chosen half, by size."""
    if not isinstance(queues.grant, DescriptorRings):
        chosen = kind(QueueAccess, "queues", "CompiledQueueAccess")
        return {size: chosen(channel, index, queues, size) for size in NOTED}
    from kvmbox.remote.published.descriptor_access import SIZES, DescriptorAccess

    return {size: DescriptorAccess(channel, index, queues, size) for size in SIZES}
