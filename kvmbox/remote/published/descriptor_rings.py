"""The rings of descriptors of an Intel 82540EM (`devices.e1000.model`): the VMM walks them as it walks
virtqueues.

All of `queues` holds here: handles, who is at fault, what waits. What is else:

- A ring is one area of descriptors of 16 bytes (`descriptor_notes` has where). What is between its head and
  its tail is the device's. Each descriptor is a chain: one buffer, or none. A buffer that is not RAM is none.
- A ring is walked when the device says `Walk`, which it does when it sees the guest move the tail.
- The head of a chain is what its descriptor says besides the address: the second half, and of a descriptor
  without a buffer both halves; nothing of one that receives, which has nothing to say.
- What goes back has its second half written, the status last: of a descriptor that sends, nothing but the
  status. Its length is no more than its buffer has.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from struct import Struct
from typing import Any, Final

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import ChainServe, ChainUsed, Connect, Walk
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.model import Effect
from kvmbox.devices.e1000.model import DESCRIPTOR_SIZE, RECEIVED, is_context
from kvmbox.host.disk.transfers import Settle
from kvmbox.remote.channel.effect_calls import CAN_WAIT, Application
from kvmbox.remote.published.descriptor_notes import RingNotes
from kvmbox.remote.published.queues import DeviceQueues, Live, Media
from kvmbox.remote.published.ring import Memory, Parts, Ring, RingError

_DESCRIPTOR: Final = Struct("<QQ")
_HALF: Final = 8
_STATUS: Final = 4  # its place in the second half
_LENGTH: Final = 0xFFFF


class DescriptorRing(Ring):
    """Ring `index` of a device, of `size` entries from `base` on. `next_used` is its head."""

    def __init__(self, memory: Memory, notes: RingNotes, index: int, size: int, base: int, head: int) -> None:
        """Raises RingError."""
        self.memory = memory
        self.size = size
        self.flags = self.used = 0
        self.descriptors = base
        self.available = head
        self.next_available = self.next_used = head
        self._notes = notes
        self._index = index
        if head >= size or not memory.has([(base, DESCRIPTOR_SIZE * size)]):
            raise RingError(f"a ring of {size} entries at {base:#x} that begins with {head}")

    def take(self, limit: int) -> list[Parts]:
        """See Ring. A tail beyond the ring sends nothing, and gives all descriptors but one to receive to."""
        found: list[Parts] = []
        tail = self._notes.tail(self._index)
        if tail >= self.size and self._index == RECEIVED:
            tail = (self.next_used - 1) % self.size  # the head never comes there: many drivers say it so
        while tail < self.size and self.next_available != tail and len(found) < limit:
            found.append(self._described(self.next_available))
            self.next_available = (self.next_available + 1) % self.size
        return found

    def _described(self, number: int) -> Parts:
        entry = self.memory.read(self.descriptors + DESCRIPTOR_SIZE * number, DESCRIPTOR_SIZE)
        address, half = _DESCRIPTOR.unpack(entry)
        if self._index == RECEIVED:
            return Parts(number, [], self._buffer(address, self._notes.buffer_size))
        if is_context(half):
            return Parts(number, [], [], entry)
        return Parts(number, self._buffer(address, half & _LENGTH), [], entry[_HALF:])

    def _buffer(self, address: int, size: int) -> list[tuple[int, int]]:
        """The buffer, if there is one. (Where the address is 0, there is none.)"""
        return [(address, size)] if size and address and self.memory.has([(address, size)]) else []

    def give_back(self, head: int, written: int) -> None:
        """See Ring: `written` is the new second half of descriptor `head`, or 0 to leave it as it is."""
        place = self.descriptors + DESCRIPTOR_SIZE * head + _HALF
        half = written.to_bytes(_HALF, "little")
        if written and self._index == RECEIVED:
            self.memory.write(place, half[:_STATUS])
            self.memory.write(place + _STATUS + 1, half[_STATUS + 1 :])
        if written:
            self.memory.write(place + _STATUS, half[_STATUS : _STATUS + 1])
        self.next_used = (self.next_used + 1) % self.size
        self._notes.moved(self._index, self.next_used)

    def wants_interrupt(self, count: int = 1) -> bool:
        """See Ring: the device has its own interrupts."""
        del count
        return False


class DescriptorQueues(DeviceQueues):
    """The two rings of one device. See the module."""

    _notes: RingNotes

    def __init__(self, grant: Queues, ram: GuestMemory, come_by: Callable[[Settle], bool]) -> None:
        super().__init__(grant, ram, come_by)
        self._notes = RingNotes()

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

    def _open(self, index: int, flags: int, size: int, *areas: int) -> None:
        base, head, _ = areas
        if size:
            with suppress(RingError):  # the device hears of it when it asks for descriptors
                self._rings[index] = DescriptorRing(self._ram, self._notes, index, size, base, head)

    def _restore(self, reader: Any, media: Media) -> None:
        super()._restore(reader, lambda _: None)  # no ring is connected
        for ring in self._rings:
            if ring is not None and max(ring.next_available, ring.next_used) >= ring.size:
                raise ValueError(f"a ring of {ring.size} entries, at {ring.next_available}, {ring.next_used}")

    def head_of(self, parts: Parts) -> bytes:
        """See DeviceQueues."""
        return parts.said
