"""Where the guest has published virtqueues, as it wrote that itself: its writes to the registers of a virtio
device (VIRTIO 1.2, 4.2.2) are noted before the device process sees them.

The process says when a queue is live, and the guest says where. So a process that is taken over cannot have
the VMM walk a ring at an address of its own. What the guest has written of a queue counts when it writes 1 to
QueueReady, until it writes 0 there or to Status, or the machine is reset.

The registers take 4 bytes at a time. An access of any other size changes nothing in the model, and is not
noted. Two CPUs that write at the same time may be noted in one order and seen by the model in the other. Then
a queue is where the guest has written, too, but it may be another one than the guest means.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

Place = tuple[int, int, int, int]
"""Entries, then the addresses of descriptors, available ring and used ring."""

_QUEUE_SEL: Final = 0x30
_QUEUE_READY: Final = 0x44
_STATUS: Final = 0x70
_FIELDS: Final = {
    0x38: (0, 0),  # QueueNum
    0x80: (1, 0),  # QueueDescLow, and so on: the field of `Place`, and the bit where it begins
    0x84: (1, 32),
    0x90: (2, 0),
    0x94: (2, 32),
    0xA0: (3, 0),
    0xA4: (3, 32),
}
NOTED: Final = frozenset((_QUEUE_SEL, _QUEUE_READY, _STATUS, *_FIELDS))
"""The registers whose writes are noted."""

_ONES: Final = 0xFFFF_FFFF
_NOWHERE: Final[Place] = (0, 0, 0, 0)
_SELECTED: Final = Struct("<I")
_WRITTEN: Final = Struct("<I3QI3Q")  # what is written, and what counts


class QueueNotes:
    """What the guest has written of the `count` queues of one device. Pure."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.forget()

    def forget(self) -> None:
        """The device is reset."""
        self._selected = 0
        self._written: list[Place] = [_NOWHERE] * self._count
        self._published: list[Place] = [_NOWHERE] * self._count

    def published(self, index: int) -> Place:
        """Where the guest has published a queue; of 0 entries if it has not."""
        return self._published[index]

    def write(self, offset: int, value: int) -> Sequence[int]:
        """The guest writes 4 bytes to a register. The queues that it has taken back by that."""
        index = self._selected
        if offset == _STATUS:
            if value & 0xFF:
                return ()
            self.forget()
            return range(self._count)
        if offset == _QUEUE_SEL:
            self._selected = value & _ONES
        elif index >= self._count:
            return ()
        elif offset == _QUEUE_READY:
            self._published[index] = self._written[index] if value & 1 else _NOWHERE
            return () if value & 1 else (index,)
        elif offset in _FIELDS:
            field, shift = _FIELDS[offset]
            place = list(self._written[index])
            place[field] = place[field] & ~(_ONES << shift) | (value & _ONES) << shift
            self._written[index] = (place[0], place[1], place[2], place[3])
        return ()

    def state(self) -> bytes:
        """What is written, for `restore`."""
        places = zip(self._written, self._published, strict=True)
        return _SELECTED.pack(self._selected) + b"".join([_WRITTEN.pack(*one, *two) for one, two in places])

    @property
    def state_size(self) -> int:
        """How many bytes `state` gives."""
        return _SELECTED.size + _WRITTEN.size * self._count

    def restore(self, state: bytes) -> None:
        """Be as `state` says, which has `state_size` bytes."""
        (self._selected,) = _SELECTED.unpack_from(state)
        for index, fields in enumerate(_WRITTEN.iter_unpack(state[_SELECTED.size :])):
            self._written[index], self._published[index] = fields[:4], fields[4:]
