"""The VMM's side of an Intel 82540EM: its rings of descriptors, and the accesses to its registers.

All of `remote.published.queues` holds here: handles, who is at fault, what waits. What is else:

- A ring is one area of descriptors of 16 bytes (`ring_watch` has where). What is between its head and
  its tail is the device's. Each descriptor is a chain: one buffer, or none. A buffer that is not RAM is none.
- A ring is walked when the device says `Walk`, which it does when it sees the guest move the tail.
- The head of a chain is what its descriptor says besides the address: the second half, and of a descriptor
  without a buffer both halves; nothing of one that receives, which has nothing to say.
- What goes back has its second half written, the status last: of a descriptor that sends, nothing but the
  status. Its length is no more than its buffer has.

A write that may publish a ring is noted and made at once, under the lock of the channel: nothing of the ring
comes in between, so that the device and the VMM agree about its head.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import ChainServe, ChainUsed, Connect, Walk
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.model import Effect
from kvmbox.contract.ring_shape import E1000_RECEIVE, E1000_SEND
from kvmbox.devices.e1000.model import IODATA, RECEIVED
from kvmbox.devices.e1000.ring_watch import NOTED, RingWatch
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import CAN_WAIT, Application, FollowUp
from kvmbox.remote.published.queues import DeviceQueues, Live, Media
from kvmbox.remote.published.registers import Registers
from kvmbox.remote.published.walker import Memory, Parts, PublishedRing, RingError
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word

_HALF: Final = 8
_STATUS: Final = 4  # its place in the second half
_LENGTH: Final = 0xFFFF
_WORD: Final = 4
SIZES: Final = (_WORD, 2 * _WORD)
"""Of accesses to registers, in bytes."""


class DescriptorRing(PublishedRing):
    """Ring `index` of a device, of `size` entries from `base` on. `next_used` is its head."""

    used = 0

    def __init__(self, memory: Memory, watch: RingWatch, index: int, size: int, base: int, head: int) -> None:
        """Raises RingError."""
        super().__init__(memory, E1000_RECEIVE if index == RECEIVED else E1000_SEND, size, 0, base)
        self.available = self.next_available = self.next_used = head
        self._watch = watch
        self._index = index
        if head >= size:
            raise RingError(f"a ring of {size} entries that begins with {head}")

    def announced(self) -> int:
        """See PublishedRing. A tail beyond the ring sends nothing, and gives all but one to receive to."""
        tail = self._watch.tail(self._index)
        if tail < self.size:
            return tail
        # The head never comes to the one before it: many drivers say it so.
        return self.next_used - 1 if self._index == RECEIVED else self.next_available

    def buffer_size(self) -> int:
        """See PublishedRing."""
        return self._watch.buffer_size

    def give_back(self, head: int, written: int) -> None:
        """See PublishedRing: `written` is the new second half of the descriptor, or 0 to leave it."""
        place = self.descriptors + 2 * _HALF * head + _HALF
        half = written.to_bytes(_HALF, "little")
        if written and self._index == RECEIVED:
            self.memory.write(place, half[:_STATUS])
            self.memory.write(place + _STATUS + 1, half[_STATUS + 1 :])
        if written:
            self.memory.write(place + _STATUS, half[_STATUS : _STATUS + 1])
        self.next_used = (self.next_used + 1) % self.size
        self._watch.moved(self._index, self.next_used)

    def wants_interrupt(self, count: int = 1) -> bool:
        """See PublishedRing: the device has its own interrupts."""
        del count
        return False


class DescriptorQueues(DeviceQueues):
    """The two rings of one device. See the module."""

    _watch: RingWatch

    def __init__(self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool]) -> None:
        super().__init__(grant, ram, come_by, RingWatch())

    def check(self, device: int, effect: Effect, media: Media) -> Application | None:
        """See DeviceQueues."""
        if isinstance(effect, Connect):
            return None  # its frames have filters, and parts
        found = super().check(device, effect, media)
        if found is not None and isinstance(effect, Walk):
            return self._walk, found[1], CAN_WAIT
        return found

    def _on_chain(self, effect: Effect, live: Live, media: Media) -> Application | None:
        match effect:
            case ChainUsed(handle, written):
                room = live.writable if live.index == RECEIVED else _LENGTH
                return (self._use, (handle, written), CAN_WAIT) if written & _LENGTH <= room else None
            case ChainServe():
                return None
        return super()._on_chain(effect, live, media)

    def _walk(self, index: int, count: int, pin: int) -> list[Any]:
        self.walks.want(index, count, pin)
        self.walks.notified(index)
        return [self.next_request]

    def new_ring(self, index: int, size: int, flags: int, *areas: int) -> PublishedRing:
        """See DeviceQueues."""
        base, head, _ = areas
        return DescriptorRing(self._ram, self._watch, index, size, base, head)

    def _restore(self, reader: Any, media: Media) -> None:
        super()._restore(reader, lambda _: None)  # no ring is connected
        for ring in self._rings:
            if ring is not None and max(ring.next_available, ring.next_used) >= ring.size:
                raise ValueError(f"a ring of {ring.size} entries, at {ring.next_available}, {ring.next_used}")

    def head_of(self, parts: Parts) -> bytes:
        """See DeviceQueues."""
        return parts.said


class E1000Registers(Registers):
    """Accesses of 4 bytes, or of 8, which are two of these."""

    queues: DescriptorQueues

    def __init__(self, channel: Channel, index: int, queues: DeviceQueues, size: int) -> None:
        super().__init__(channel, index, queues, size, NOTED if size == _WORD else range(IODATA))

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """See Registers. Raises DeviceProcessError."""
        kind = word & 0xFF
        if self.size == _WORD:
            return self._access(kind, offset, value)
        low = self._access(kind, offset, value & 0xFFFF_FFFF)
        return low | self._access(kind, offset + _WORD, value >> 32) << 32

    def _access(self, kind: int, offset: int, value: int) -> int:
        if kind != protocol.WRITE or offset not in NOTED or self.channel.failure is not None:
            limit = 0 if kind == protocol.WRITE else 0xFFFF_FFFF
            return self.channel.access(request_word(kind, self.index, _WORD), offset, value, limit)

        def under_lock() -> list[Any]:
            self.queues.note(offset, value)
            return [FollowUp(kind, self.index, value, offset, size=_WORD)]

        self.channel.serve(under_lock)
        return 0

    def _write(self, offset: int, value: int) -> bool:
        """See Registers."""
        for place in range(offset, offset + self.size, _WORD):
            if place in NOTED:
                self._do(partial(self.queues.note, place, value & 0xFFFF_FFFF))
            value >>= 32
        return False


def queues_of(
    grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool], *, compiled: bool
) -> DescriptorQueues:
    """See `remote.published.queue_kinds`. There is one half."""
    del compiled
    return DescriptorQueues(grant, ram, come_by)


def registers_of(channel: Channel, index: int, queues: DeviceQueues) -> dict[int, Registers]:
    """See `remote.published.queue_kinds`."""
    return {size: E1000Registers(channel, index, queues, size) for size in SIZES}
