"""The walker of split virtqueues (VIRTIO 1.2, section 2.7): from rings in guest memory to checked ranges.

All of a ring is written by the guest, maybe while it is read here. So every index, descriptor and table is
read once, the copy is checked, and the copy is used. What the walker needs to know it keeps itself: it never
reads back what it has written for the guest.

What is no ring raises `RingError`, and the queue is dead then. It is the guest's fault, and nobody else's:

- a queue whose size is no power of two, or an area of it that is not aligned or not wholly in RAM;
- an available index that is more than the size of the queue ahead;
- a descriptor number beyond its table, and a chain with more descriptors than its table has;
- an indirect table that was not negotiated, within another one, before another descriptor, of no whole number
  of descriptors, of none, or of more than `MAX_TABLE`;
- a readable descriptor behind a writable one;
- bytes that are not RAM (a hole, a ROM, beyond the last address), and 4 GiB or more in one direction.

A descriptor of no bytes is valid at any address, and adds nothing. How long a walk takes is bounded by the
number of chains that are asked for, times the descriptors that a table may have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple, Protocol

from kvmbox.contract.bulk_data import EVENT_INDEX, INDIRECT
from kvmbox.remote.transport.memory_barrier import fence

MAX_TABLE: Final = 256
"""How many descriptors an indirect table may have: as many as the largest queue."""
MAX_BYTES: Final = (1 << 32) - 1
"""Of the readable, or the writable, part of a chain."""

_DESCRIPTOR: Final = Struct("<QIHH")  # address, length, flags, next: 2.7.5
_USED: Final = Struct("<II")  # descriptor, bytes written: 2.7.8

_NEXT: Final = 1
_WRITE: Final = 2
_INDIRECT: Final = 4
_NO_INTERRUPT: Final = 1  # of the available ring's flags: 2.7.7
_NO_NOTIFY: Final = 1  # of the used ring's flags: 2.7.10

_INDEX: Final = 2  # of both rings: behind the flags, before the entries
_ENTRIES: Final = 4
_WRAP: Final = 0xFFFF


class RingError(Exception):
    """What the guest has published is not a ring. The message says why."""


class Memory(Protocol):
    """Guest memory, as far as a ring needs it: see `kvmbox.base.memory`."""

    def has(self, ranges: Sequence[tuple[int, int]], /) -> bool:
        """Whether every (address, size) is RAM."""
        ...

    def read(self, address: int, size: int, /) -> bytes:
        """A copy of bytes that are RAM."""
        ...

    def write(self, address: int, data: bytes, /) -> None:
        """Store bytes where there is RAM."""
        ...

    def load16(self, address: int, /) -> int:
        """Two bytes as a number, in one access."""
        ...

    def store16(self, address: int, value: int, /) -> None:
        """The same to write."""
        ...


class Parts(NamedTuple):
    """A chain: the number of its first descriptor, and (address, size) of its readable and writable bytes.

    All of it is RAM. There are no ranges of no bytes. `said` is what else a `DescriptorRing` has found.
    """

    head: int
    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]
    said: bytes = b""


class Ring:
    """A queue of `size` entries whose areas are at these guest-physical addresses. See the module."""

    def __init__(
        self, memory: Memory, size: int, flags: int, descriptors: int, available: int, used: int
    ) -> None:
        """`flags` are `EVENT_INDEX` and `INDIRECT` of `contract.model`. Raises RingError."""
        self.memory = memory
        self.size = size
        self.flags = flags
        self.descriptors = descriptors
        self.available = available
        self.used = used
        self.next_available = 0
        """Index of the next chain to take, modulo 65536."""
        self.next_used = 0
        """Index of the next chain to give back, modulo 65536."""
        if not 0 < size <= 1 << 15 or size & size - 1:
            raise RingError(f"a queue of {size} entries")
        if descriptors % 16 or available % 2 or used % 4:
            raise RingError(f"a queue at {descriptors:#x}, {available:#x}, {used:#x}, which is not aligned")
        areas = [(descriptors, 16 * size), (available, 6 + 2 * size), (used, 6 + 8 * size)]
        if not memory.has(areas):
            raise RingError(f"a queue at {descriptors:#x}, {available:#x}, {used:#x}, which is not RAM")

    # --- From the driver ----------------------------------------------------------------------------------

    def take(self, limit: int) -> list[Parts]:
        """The next chains, at most `limit`. When there are fewer, the driver will notify of the next one.

        Raises RingError.
        """
        found: list[Parts] = []
        while len(found) < limit:
            waiting = self.waiting()
            if not waiting:
                self.wants_notice(True)
                waiting = self.waiting()  # the driver may not have seen that in time
                if not waiting:
                    return found
            found += [self._next() for _ in range(min(waiting, limit - len(found)))]
        self.wants_notice(False)
        return found

    def waiting(self) -> int:
        """How many chains the driver has made available that were not taken. Raises RingError."""
        index = self.memory.load16(self.available + _INDEX)
        waiting = index - self.next_available & _WRAP
        if waiting > self.size:
            raise RingError(f"{waiting} chains are available in a queue of {self.size}")
        return waiting

    def _next(self) -> Parts:
        slot = self.next_available % self.size
        chain = self._chain(self.memory.load16(self.available + _ENTRIES + 2 * slot))
        self.next_available = self.next_available + 1 & _WRAP
        return chain

    def _entry(self, index: int) -> bytes:
        return self.memory.read(self.descriptors + _DESCRIPTOR.size * index, _DESCRIPTOR.size)

    def _chain(self, head: int) -> Parts:
        chain = Parts(head, [], [])
        entry: Callable[[int], bytes] = self._entry
        count, left, index = self.size, self.size, head
        may_read = True
        while True:
            if index >= count or not left:
                raise RingError(f"descriptor {index} of {count}, with {left} left")
            left -= 1
            address, length, flags, following = _DESCRIPTOR.unpack(entry(index))
            if flags & _INDIRECT:
                if entry != self._entry:
                    raise RingError("an indirect table within another one")
                entry, count = self._table(address, length, flags)
                left, index = count, 0
                continue
            if flags & _WRITE:
                may_read = False
            elif not may_read:
                raise RingError("a readable descriptor behind a writable one")
            if length:
                (chain.writable if flags & _WRITE else chain.readable).append((address, length))
            if not flags & _NEXT:
                break
            index = following
        for part in (chain.readable, chain.writable):
            if not self.memory.has(part) or sum(length for _, length in part) > MAX_BYTES:
                raise RingError("a chain whose bytes are not RAM, or too many")
        return chain

    def _table(self, address: int, length: int, flags: int) -> tuple[Callable[[int], bytes], int]:
        """What gives the descriptors of an indirect table, which is read once, and how many there are."""
        count, odd = divmod(length, _DESCRIPTOR.size)
        if not self.flags & INDIRECT or flags & _NEXT or odd or not 0 < count <= MAX_TABLE:
            raise RingError(f"an indirect table of {length} bytes, with flags {flags:#x}")
        if not self.memory.has([(address, length)]):
            raise RingError(f"an indirect table at {address:#x}, which is not RAM")
        table = self.memory.read(address, length)
        return lambda index: table[_DESCRIPTOR.size * index : _DESCRIPTOR.size * (index + 1)], count

    def untake(self, count: int) -> None:
        """The chains that were taken last, so many, are to be taken again."""
        self.next_available = self.next_available - count & _WRAP

    # --- To the driver ------------------------------------------------------------------------------------

    def give_back(self, head: int, written: int) -> None:
        """Put a chain into the used ring: the device has written so many bytes."""
        self.give_back_together([(head, written)])

    def give_back_together(self, chains: Sequence[tuple[int, int]]) -> None:
        """The same with several chains: the driver sees all of them, or none."""
        for index, chain in enumerate(chains, self.next_used):
            place = self.used + _ENTRIES + _USED.size * (index % self.size)
            self.memory.write(place, _USED.pack(*chain))
        self.next_used = self.next_used + len(chains) & _WRAP
        self.memory.store16(self.used + _INDEX, self.next_used)

    def wants_interrupt(self, count: int = 1) -> bool:
        """Whether the driver wants an interrupt for the chains that were given back last, so many."""
        fence()  # their index is to be seen before the driver's wish is looked at
        if self.flags & EVENT_INDEX:
            event = self.memory.load16(self.available + _ENTRIES + 2 * self.size)
            return self.next_used - 1 - event & _WRAP < count
        return not self.memory.load16(self.available) & _NO_INTERRUPT

    def wants_notice(self, on: bool) -> None:
        """Ask the driver to notify of the next chain, or not to notify."""
        if not self.flags & EVENT_INDEX:
            self.memory.store16(self.used, 0 if on else _NO_NOTIFY)
        elif on:  # else the index that is there is one that has passed
            self.memory.store16(self.used + _ENTRIES + _USED.size * self.size, self.next_available)
        fence()
