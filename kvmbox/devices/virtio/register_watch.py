"""Where the guest has published virtqueues, as it wrote that itself: its writes to the registers of a virtio
device (VIRTIO 1.2, 4.2.2; over PCI 4.1.4.3 and 4.1.4.8) are noted before the device process sees them.

The process says when a queue is live, and the guest says where. So a process that is taken over cannot have
the VMM walk a ring at an address of its own. What the guest has written of a queue counts when it writes 1 to
QueueReady, until it writes 0 there or to Status, or the machine is reset. A legacy driver gives a page
instead, which says it all.

A register takes accesses of its own size. One of any other size changes nothing in the model, and is not
noted. A device over MMIO has no registers where one over PCI has some, and the other way round.

Two CPUs that write at the same time may be noted in one order and seen by the model in the other. Then a
queue is where the guest has written, too, but it may be another one than the guest means.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from kvmbox.devices.virtio.registers import COMMON, ISR, LEGACY, NOTIFY, NOTIFY_STEP, legacy_areas

Place = tuple[int, int, int, int]
"""Entries, then the addresses of descriptors, available ring and used ring."""

_HALVES: Final = tuple((area, half) for area in range(3) for half in range(2))
_SELECT, _SIZE, _AREA, _READY, _STATUS, _PAGE, _NOTHING = range(7)

_ACTIONS: Final[dict[tuple[int, int], tuple[int, int]]] = {
    (0x30, 4): (_SELECT, 0),  # QueueSel, and so on: what is written, and for an area the bit where it begins
    (0x38, 4): (_SIZE, 0),
    (0x44, 4): (_READY, 0),
    (0x70, 4): (_STATUS, 0),
    **{(0x80 + 16 * area + 4 * half, 4): (_AREA, 64 * area + 32 * half) for area, half in _HALVES},
    (COMMON + 0x14, 1): (_STATUS, 0),
    (COMMON + 0x16, 2): (_SELECT, 0),
    (COMMON + 0x18, 2): (_SIZE, 0),
    (COMMON + 0x1C, 2): (_READY, 0),
    **{(COMMON + 0x20 + 8 * area + 4 * half, 4): (_AREA, 64 * area + 32 * half) for area, half in _HALVES},
    (LEGACY + 0x08, 4): (_PAGE, 0),
    (LEGACY + 0x0E, 2): (_SELECT, 0),
    (LEGACY + 0x12, 1): (_STATUS, 0),
}
"""What the writes to registers mean, by offset and size."""

NOTED: Final = {
    size: frozenset(offset for offset, one in _ACTIONS if one == size)
    for size in {size for _, size in _ACTIONS}
}
"""The registers whose writes are noted, by size."""

INTERRUPT_STATUS: Final = 0x60
INTERRUPT_ACK: Final = 0x64
LEGACY_ISR: Final = LEGACY + 0x13
NOTIFIES: Final = {4: 0x50, 2: LEGACY + 0x10}
"""By size: the register to which the number of a queue is written to notify of it."""
NUMBERED: Final = range(NOTIFY, LEGACY, NOTIFY_STEP)
"""The registers of one queue each: a write notifies of it."""
SERVED: Final = {
    1: frozenset((ISR, LEGACY_ISR, *NUMBERED)),
    2: frozenset((ISR, NOTIFIES[2], *NUMBERED)),
    4: frozenset((ISR, NOTIFIES[4], INTERRUPT_STATUS, INTERRUPT_ACK, *NUMBERED)),
}
"""The registers that the VMM answers for, by size."""


def notified(offset: int, size: int, value: int) -> int | None:
    """The queue that a write notifies of, or None: it is no notification."""
    if offset in NUMBERED:
        return NUMBERED.index(offset)
    return value if offset == NOTIFIES.get(size) else None


_ONES: Final = 0xFFFF_FFFF
_NOWHERE: Final[Place] = (0, 0, 0, 0)
_SELECTED: Final = Struct("<I")
_WRITTEN: Final = Struct("<I3QI3Q")  # what is written, and what counts


def _changed(place: Place, action: int, shift: int, value: int) -> Place:
    """The place after a write to one of its fields."""
    fields = list(place)
    if action == _SIZE:
        fields[0] = value
    else:
        area, bit = divmod(shift, 64)
        fields[1 + area] = fields[1 + area] & ~(_ONES << bit) | value << bit
    return fields[0], fields[1], fields[2], fields[3]


class VirtqueueWatch:
    """What the guest has written of the `count` queues of one device. Pure."""

    def __init__(self, count: int, size: int = 0) -> None:
        """A queue has `size` entries before the guest says so."""
        self._count = count
        self._unwritten: Place = (size, 0, 0, 0)
        self.forget()

    def forget(self) -> None:
        """The device is reset."""
        self._selected = 0
        self._written: list[Place] = [self._unwritten] * self._count
        self._published: list[Place] = [_NOWHERE] * self._count

    def published(self, index: int) -> Place:
        """Where the guest has published a queue; of 0 entries if it has not."""
        return self._published[index]

    def resets(self, offset: int, value: int, size: int) -> bool:
        """Whether a write resets the device."""
        return _ACTIONS.get((offset, size), (_NOTHING, 0))[0] == _STATUS and not value & 0xFF

    def write(self, offset: int, value: int, size: int = 4) -> Sequence[int]:
        """The guest writes a register. The queues that it has taken back by that."""
        action, shift = _ACTIONS.get((offset, size), (_NOTHING, 0))
        value &= (1 << 8 * size) - 1
        index = self._selected
        if action == _STATUS:
            if value & 0xFF:
                return ()
            self.forget()
            return range(self._count)
        if action == _SELECT:
            self._selected = value
        elif index >= self._count:
            return ()
        elif action == _READY:
            self._published[index] = self._written[index] if value & 1 else _NOWHERE
            return () if value & 1 else (index,)
        elif action == _PAGE:
            entries = self._unwritten[0]
            self._published[index] = (entries, *legacy_areas(value, entries)) if value else _NOWHERE
            return () if value else (index,)
        elif action != _NOTHING:
            self._written[index] = _changed(self._written[index], action, shift, value)
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
