"""The transport of virtio devices, memory-mapped, version 2 (VIRTIO 1.2, 4.2.2), and what they share.

Theory of operation
-------------------
The registers are here: features, status, and the places of the queues. A queue is walked by the VMM, which is
told where it is by `Queue`. While the driver is running, the model wants the chains of all queues (`Walk`),
and gets them by `chains`: handles, with lengths and the first bytes, and no address. What a device makes of a
chain is in the subclass: `_take`.

A notification is answered by the VMM with `chains`: it is never written here. At most `BATCH` chains come at
a time, so that the effects of one request fit in a frame. The VMM keeps count of those that the model has.

What the guest has published may be no queue: `chains` says so. Then the device needs a reset: DEVICE_NEEDS_
RESET is set, the guest is told by a configuration interrupt, and no queue is looked at any more (2.1.2).

Interrupts. InterruptStatus and InterruptACK are the VMM's, which sees the rings: it knows what was used, and
whether the guest wants an interrupt for that.

Registers are accessed with 4 bytes at a time. The configuration space of the device, from 0x100 on, may be
read with any size, and is never written. Anything else reads as ones, and drops what is written.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import EVENT_INDEX, INDIRECT, ChainUsed, ConfigChanged, Queue, Walk
from kvmbox.contract.model import DONE, SnapshotError, TimelessModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from kvmbox.contract.bulk_data import Chain
    from kvmbox.devices.virtio.msix_table import PciState

MAGIC_VALUE: Final = 0x000
VERSION: Final = 0x004
DEVICE_ID: Final = 0x008
VENDOR_ID: Final = 0x00C
DEVICE_FEATURES: Final = 0x010
DEVICE_FEATURES_SEL: Final = 0x014
DRIVER_FEATURES: Final = 0x020
DRIVER_FEATURES_SEL: Final = 0x024
QUEUE_SEL: Final = 0x030
QUEUE_NUM_MAX: Final = 0x034
QUEUE_NUM: Final = 0x038
QUEUE_READY: Final = 0x044
QUEUE_NOTIFY: Final = 0x050
INTERRUPT_STATUS: Final = 0x060
INTERRUPT_ACK: Final = 0x064
STATUS: Final = 0x070
QUEUE_DESC: Final = 0x080  # low half; the high one is the next register
QUEUE_DRIVER: Final = 0x090
QUEUE_DEVICE: Final = 0x0A0
CONFIG_GENERATION: Final = 0x0FC
CONFIG: Final = 0x100

ACKNOWLEDGE: Final = 1
DRIVER: Final = 2
DRIVER_OK: Final = 4
FEATURES_OK: Final = 8
NEEDS_RESET: Final = 64

USED_BUFFER: Final = 1  # of InterruptStatus
CONFIG_CHANGE: Final = 2

F_INDIRECT_DESC: Final = 1 << 28
F_EVENT_IDX: Final = 1 << 29
F_VERSION_1: Final = 1 << 32

QUEUE_SIZE: Final = 256
"""What a queue may have at most."""
BATCH: Final = 16
PIN: Final = 0
DEPTH: Final = 64
"""How many chains of a queue a device may have."""

_MAGIC: Final = int.from_bytes(b"virt", "little")
_VENDOR: Final = int.from_bytes(b"kvmb", "little")
_ONES: Final = 0xFFFF_FFFF
_AREAS: Final = {
    register + half: (area, 32 * (half > 0))
    for area, register in enumerate((QUEUE_DESC, QUEUE_DRIVER, QUEUE_DEVICE))
    for half in (0, 4)
}

_OF_OFFER: Final = 0
_OF_CHOICE: Final = 1
_OF_QUEUE: Final = 2
_SELECTORS: Final = {
    DEVICE_FEATURES_SEL: _OF_OFFER,
    DRIVER_FEATURES_SEL: _OF_CHOICE,
    QUEUE_SEL: _OF_QUEUE,
}

_HEADER: Final = struct.Struct("<4sBIIIQ")  # magic, status, three selectors, features
_QUEUE: Final = struct.Struct("<IB3Q")  # entries, ready, areas


class _Registers:
    """A queue as the guest has set it up."""

    __slots__ = ("areas", "ready", "size")

    def __init__(self) -> None:
        self.size = 0
        self.ready = 0
        self.areas = [0, 0, 0]


class VirtioMmio(TimelessModel):
    """Base of virtio devices. A subclass has the class attributes below, and the methods of its chains."""

    __slots__ = ("_features", "_pci", "_queues", "_selected", "_status", "features", "space")

    device_id: int = 0
    queue_count: int = 1
    magic: bytes = b""
    """Name and version of the snapshot: 4 bytes."""
    _pci: PciState
    """What a device over PCI has besides: see `pci`."""

    def __init__(self, *, features: int = 0, space: bytes = b"") -> None:
        """`features` are those of the device type; `space` is its configuration space."""
        super().__init__()
        self.features = features | F_VERSION_1 | F_INDIRECT_DESC | F_EVENT_IDX
        self.space = space
        self._power_on()

    def _power_on(self) -> None:
        self._status = self._features = 0
        self._selected = [0, 0, 0]  # DeviceFeaturesSel, DriverFeaturesSel, QueueSel
        self._queues = [_Registers() for _ in range(self.queue_count)]

    # --- Of the subclass ----------------------------------------------------------------------------------

    def _take(self, index: int, chain: Chain) -> None:
        """The guest has made a chain available in queue `index`. It is the device's until `_use`."""
        raise NotImplementedError

    def _forget(self) -> None:
        """All chains are void: the device is reset."""

    def _forget_queue(self, index: int) -> None:
        """The chains of this queue are void."""

    # --- Registers ----------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if offset >= CONFIG and offset + size <= CONFIG + len(self.space):
            start = offset - CONFIG
            return int.from_bytes(self.space[start : start + size], "little")
        reader = _READERS.get(offset) if size == 4 else None
        return (1 << 8 * size) - 1 if reader is None else reader(self) & _ONES

    def _queue(self) -> _Registers | None:
        index = self._selected[_OF_QUEUE]
        return self._queues[index] if index < self.queue_count else None

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if size != 4:
            return
        value &= _ONES
        writer = _WRITERS.get(offset)
        if writer is not None:
            writer(self, value)
        elif offset in _SELECTORS:
            self._selected[_SELECTORS[offset]] = value
        else:
            self._place(offset, value)

    def _offered(self) -> int:
        half = self._selected[_OF_OFFER]
        return self.features >> 32 * half if half < 2 else 0

    def _most(self) -> int:
        return 0 if self._queue() is None else QUEUE_SIZE

    def _is_ready(self) -> int:
        queue = self._queue()
        return 0 if queue is None else queue.ready

    def _accept(self, value: int) -> None:
        """The driver accepts features, half of them at a time, until it has said FEATURES_OK."""
        half = self._selected[_OF_CHOICE]
        if half < 2 and not self._status & FEATURES_OK:
            shift = 32 * half
            self._features = self._features & ~(_ONES << shift) | value << shift

    def _place(self, offset: int, value: int) -> None:
        """What says how large a queue is, and where its areas are."""
        queue = self._queue()
        if queue is None or queue.ready:
            return
        if offset == QUEUE_NUM:
            queue.size = value
        elif offset in _AREAS:
            area, shift = _AREAS[offset]
            queue.areas[area] = queue.areas[area] & ~(_ONES << shift) | value << shift

    def _set_ready(self, ready: int) -> None:
        queue, index = self._queue(), self._selected[_OF_QUEUE]
        ready &= 1
        if queue is None or queue.ready == ready or not self._status & FEATURES_OK:
            return
        queue.ready = ready
        self._unpublish(index)
        if ready:
            flags = EVENT_INDEX * (self._features & F_EVENT_IDX > 0)
            flags |= INDIRECT * (self._features & F_INDIRECT_DESC > 0)
            self._effects.append(Queue(index, queue.size, flags, *queue.areas))
            self._want(index)

    def _unpublish(self, index: int) -> None:
        """There is no queue `index`: the device has none of its chains."""
        self._forget_queue(index)
        if not self._queues[index].ready:
            self._effects.append(Queue(index, 0, 0, 0, 0, 0))

    def _set_status(self, value: int) -> None:
        """The driver adds bits. It takes none back but all of them, which resets the device."""
        if not value & 0xFF:
            for index, queue in enumerate(self._queues):
                if queue.ready:
                    queue.ready = 0
                    self._unpublish(index)
            self._restart()
            return
        status = self._status | value & 0xFF & ~NEEDS_RESET
        offered = self.features & self._features == self._features
        if not (offered and self._features & F_VERSION_1):
            status &= ~FEATURES_OK
        if not status & FEATURES_OK:
            status &= ~DRIVER_OK
        self._become_status(status)

    def _become_status(self, status: int) -> None:
        changed = (status ^ self._status) & DRIVER_OK
        self._status = status
        if changed and status & DRIVER_OK:
            for index in range(self.queue_count):
                self._want(index)
        elif changed:
            self._effects += [Walk(index, 0) for index in range(self.queue_count)]

    def _restart(self) -> None:
        self._power_on()
        self._forget()

    # --- Chains -------------------------------------------------------------------------------------------

    def _pin_of(self, index: int) -> int:
        """The output pin of the interrupts of queue `index`."""
        return PIN

    def _pin_of_change(self) -> int:
        """The output pin of the interrupts because of the configuration."""
        return PIN

    def _want(self, index: int) -> None:
        """The chains of a queue are wanted, if the driver is running."""
        if self._queues[index].ready and self._status & (DRIVER_OK | NEEDS_RESET) == DRIVER_OK:
            self._effects.append(Walk(index, BATCH, self._pin_of(index)))
            self._wanted(index)

    def _wanted(self, index: int) -> None:
        """The chains of a queue are wanted from now on."""

    def _break(self) -> None:
        """The driver, which is running, has done what no driver may do: only a reset helps."""
        if not self._status & NEEDS_RESET:
            self._status |= NEEDS_RESET
            self._effects.append(ConfigChanged(self._pin_of_change()))
            self._effects += [Walk(index, 0) for index in range(self.queue_count)]

    def chains(self, now: int, index: int, chains: list[Chain], status: int) -> None:
        """See QueueModel."""
        if index >= self.queue_count or not self._queues[index].ready:
            return
        if status != DONE:
            self._break()
        for chain in chains:
            if not self._status & NEEDS_RESET:
                self._take(index, chain)

    def _use(self, handle: int, written: int) -> None:
        """Give a chain back."""
        self._effects.append(ChainUsed(handle, written))

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel. A device that reads chains has its own."""

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel. A device that has transfers has its own."""

    # --- State --------------------------------------------------------------------------------------------

    def reset(self, now: int) -> None:
        """See DeviceModel. The VMM has forgotten the queues already."""
        self._restart()

    def snapshot(self) -> bytes:
        """See DeviceModel: the registers, then what the subclass has in hand."""
        state = _HEADER.pack(self.magic, self._status, *self._selected, self._features)
        return state + b"".join(
            [_QUEUE.pack(queue.size, queue.ready, *queue.areas) for queue in self._queues]
        )

    def _restored(self, state: bytes) -> tuple[list[_Registers], bytes]:
        """The queues of a snapshot, and what the subclass had. Raises SnapshotError; changes nothing."""
        end = _HEADER.size + _QUEUE.size * self.queue_count
        if len(state) < end or not state.startswith(self.magic):
            raise SnapshotError(f"not a snapshot of this model and version ({self.magic!r})")
        queues = []
        for fields in _QUEUE.iter_unpack(state[_HEADER.size : end]):
            queue = _Registers()
            queue.size, queue.ready, *queue.areas = fields
            if queue.ready > 1:
                raise SnapshotError(f"a queue that is ready {queue.ready} times")
            queues.append(queue)
        return queues, state[end:]

    def restore(self, state: bytes) -> None:
        """See DeviceModel. A device that has something in hand has its own."""
        queues, behind = self._restored(state)
        if behind:
            raise SnapshotError(f"{len(behind)} stray bytes")
        self._become(state, queues)

    def _become(self, state: bytes, queues: list[_Registers]) -> None:
        """Be as a snapshot says that was found good."""
        _, self._status, *selected, self._features = _HEADER.unpack_from(state)
        self._selected = selected
        self._queues = queues
        self._effects = []


_READERS: Final[dict[int, Callable[[VirtioMmio], int]]] = {
    MAGIC_VALUE: lambda _: _MAGIC,
    VERSION: lambda _: 2,
    DEVICE_ID: lambda device: device.device_id,
    VENDOR_ID: lambda _: _VENDOR,
    DEVICE_FEATURES: VirtioMmio._offered,
    QUEUE_NUM_MAX: VirtioMmio._most,
    QUEUE_READY: VirtioMmio._is_ready,
    INTERRUPT_STATUS: lambda _: 0,  # which the VMM answers
    STATUS: lambda device: device._status,
    CONFIG_GENERATION: lambda _: 0,  # the configuration space never changes
}
_WRITERS: Final[dict[int, Callable[[VirtioMmio, int], None]]] = {
    DRIVER_FEATURES: VirtioMmio._accept,
    QUEUE_READY: VirtioMmio._set_ready,
    STATUS: VirtioMmio._set_status,
}
