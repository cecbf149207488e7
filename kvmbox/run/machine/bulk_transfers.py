"""What moves bulk data of devices: resources to and from guest memory, and media.

What may have to wait is done by one thread, which is there if a device may have something moved, and which
starts when the VMM is confined. The main thread tells the devices.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from kvmbox.base.compiled import is_compiled
from kvmbox.contract.model import DONE
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.published.guest_memory import settled

if TYPE_CHECKING:
    from kvmbox.base.memory import GuestMemory
    from kvmbox.contract.device_spec import Medium, Queues, Resource
    from kvmbox.host.disk.transfers import Settle, Store, TransferThread
    from kvmbox.remote.process.device_pool import DevicePool
    from kvmbox.remote.published.guest_memory import Submit
    from kvmbox.remote.published.medium import MediumAccess
    from kvmbox.remote.published.queues import DeviceQueues


class Mover:
    """See the module. `transfers`, `medium` and `queues` are those of `remote.channel.grants.Host`."""

    def __init__(self, ram: GuestMemory, stores: Mapping[str, Store], wake: Callable[[], None]) -> None:
        """`stores` are the resources by name; `wake` makes the main thread call `complete_transfers`."""
        self.thread: TransferThread | None = None
        """The thread, if there is one."""
        self._ram = ram
        self._stores = stores
        self._wake = wake

    def _needed(self) -> TransferThread:
        from kvmbox.host.disk.transfers import TransferThread

        if self.thread is None:
            self.thread = TransferThread(self._ram, self._wake)
        return self.thread

    def transfers(self, device: str, grant: Resource) -> Submit:
        """What takes transfers of a device's resource."""
        from kvmbox.host.disk.transfers import Order

        thread, store = self._needed(), self._stores[grant.name]

        def submit(tag: int, offset: int, ranges: Sequence[tuple[int, int]], to_guest: bool) -> bool:
            order = Order(device, tag, store, grant.size, offset, ranges, to_guest)
            return thread.submit(order, grant.max_pending)

        return submit

    def medium(self, device: str, grant: Medium) -> MediumAccess:
        """What reads and writes a device's medium."""
        from kvmbox.host.disk.transfers import BytesStore, Errand
        from kvmbox.remote.published.medium import MOST_ERRANDS, MediumAccess, medium_store

        thread = self._needed()
        store = self._stores[grant.name] if grant.size else BytesStore(b"")

        def submit(tag: int, work: Callable[[], int], settle: Settle | None) -> bool:
            return thread.submit(Errand(device, tag, work, settle), MOST_ERRANDS)

        return MediumAccess(grant, medium_store(store), submit)

    def queues(self, device: str, grant: Queues, wait_for_room: Callable[[], None]) -> DeviceQueues:
        """The virtqueues of a device. What they want later waits in the thread until output has room."""
        from kvmbox.host.disk.transfers import Errand
        from kvmbox.remote.published.medium import MOST_ERRANDS
        from kvmbox.remote.published.queue_kinds import queues_of

        thread = self._needed()

        def wait() -> int:
            wait_for_room()
            return DONE

        def come_by(settle: Settle) -> bool:
            return thread.submit(Errand(device, 0, wait, settle), MOST_ERRANDS)

        return queues_of(grant, self._ram, come_by, compiled=is_compiled())


def complete_transfers(thread: TransferThread, pool: DevicePool) -> bool:
    """Send COMPLETE for what is done; whether anything was. By the main thread. Raises DeviceProcessError."""
    finished = thread.take_done()
    for done in finished:
        for device_type, index, device in pool.places():
            if device.name == done.device:
                pool.channel(device_type).serve(
                    partial(settled, index, done.tag, done.status, done.settle), REPLY_SLICES
                )
    return bool(finished)
