"""Published memory: the one way of devices to guest memory, from rings in it to checked ranges.

*Who publishes.* The guest alone names addresses: where a ring is by its writes to registers (`queues.Watch`),
and buffers in the entries of the ring. What a ring of a chip looks like is data: `contract.ring_shape`.

*What it covers.* The entries that the guest has announced, and that the device has not given back. All of a
ring is written by the guest, maybe while it is read here. So an entry, an index or a table is fetched once,
by one read. The copy is checked, and the copy is used. Every buffer is checked against RAM. A walk is bounded
by the number of chains that are asked for, times the entries that a ring or a table may have. What the walker
needs to know it keeps itself: it never reads back what it has written for the guest. The device process gets
handles and lengths (`queues`). A chain goes back once, with no more bytes than it had room for.

*When it ends.* When the chain goes back, when the guest takes the ring back, and when the device or the
machine is reset: before the write that does so returns (`DeviceQueues.note`).

What is no ring raises `RingError`, and the queue is dead then. It is the guest's fault, and nobody else's:

- a ring whose size is none that its shape has, or an area of it that is not aligned or not wholly in RAM;
- an index that announces more entries than the ring has;
- a descriptor number beyond its table, and a chain with more descriptors than its table has;
- an indirect table that was not negotiated, within another one, before another descriptor, of no whole number
  of descriptors, of none, or of more than its shape allows;
- a readable descriptor behind a writable one;
- where the shape is strict, bytes that are not RAM (a hole, a ROM, beyond the last address), and more than
  its `most_bytes` in one direction.

A buffer of no bytes is valid at any address, and adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import NamedTuple, Protocol

from kvmbox.contract.bulk_data import INDIRECT
from kvmbox.contract.ring_shape import RingShape


class RingError(Exception):
    """What the guest has published is not a ring. The message says why."""


class Memory(Protocol):
    """Guest memory, as far as a ring needs it: see `kvmbox.base.memory`."""

    def has(self, ranges: Sequence[tuple[int, int]], /) -> bool:
        """Whether every (address, size) is RAM."""

    def read(self, address: int, size: int, /) -> bytes:
        """A copy of bytes that are RAM."""

    def write(self, address: int, data: bytes, /) -> None:
        """Store bytes where there is RAM."""

    def load16(self, address: int, /) -> int:
        """Two bytes as a number, in one access."""

    def store16(self, address: int, value: int, /) -> None:
        """The same to write."""


class Parts(NamedTuple):
    """A chain: the number of its first entry, and (address, size) of its readable and writable bytes.

    All of it is RAM. There are no ranges of no bytes. `said` is what the device is told of the entry itself.
    """

    head: int
    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]
    said: bytes = b""


class PublishedRing:
    """A ring of `size` entries at these guest-physical addresses, of one shape. See the module."""

    available: int
    """Where entries are announced, if that is in memory."""
    used: int
    """Where they go back to, if that is in memory."""

    def __init__(self, memory: Memory, shape: RingShape, size: int, flags: int, *areas: int) -> None:
        """`flags` are `EVENT_INDEX` and `INDIRECT` of `contract.bulk_data`. Raises RingError."""
        self.memory = memory
        self.shape = shape
        self.size = size
        self.flags = flags
        self.descriptors = areas[0]
        self.next_available = 0
        """Index of the next chain to take, modulo `wrap`."""
        self.next_used = 0
        """Index of the next chain to give back, modulo `wrap`."""
        self.wrap = shape.wraps or size
        entry, form = shape.entry, Struct(shape.entry.form)
        self._how = (
            *(form.unpack, form.size, entry.address, entry.length, entry.length_bits),
            *(entry.flags, entry.writes, entry.goes_on, entry.table, entry.bare),
        )
        self._listed = None if shape.listed is None else areas[shape.listed[0]] + shape.listed[1]
        if not 0 < size <= shape.most or (shape.by_twos and size & size - 1):
            raise RingError(f"a ring of {size} entries")
        ranges = [(area, one.fixed + one.each * size) for area, one in zip(areas, shape.areas, strict=True)]
        at = ", ".join(f"{area:#x}" for area in areas)
        if any(area % one.aligned for area, one in zip(areas, shape.areas, strict=True)):
            raise RingError(f"a ring at {at}, which is not aligned")
        if not memory.has(ranges):
            raise RingError(f"a ring at {at}, which is not RAM")

    # --- What a chip says ---------------------------------------------------------------------------------

    def announced(self) -> int:
        """The index up to which the guest has announced entries, read once."""
        raise NotImplementedError

    def buffer_size(self) -> int:
        """How long a buffer is, where entries do not say so."""
        raise NotImplementedError

    def wants_notice(self, on: bool) -> None:
        """Ask the driver to notify of the next chain, or not to notify, where one can."""

    def give_back(self, head: int, written: int) -> None:
        """A chain goes back: so many bytes were written, or what the chip says instead."""
        self.give_back_together([(head, written)])

    def give_back_together(self, chains: Sequence[tuple[int, int]]) -> None:
        """The same with several chains: the driver sees all of them, or none."""
        raise NotImplementedError

    def wants_interrupt(self, count: int = 1) -> bool:
        """Whether the driver wants an interrupt for the chains that were given back last, so many."""
        raise NotImplementedError

    # --- The walk -----------------------------------------------------------------------------------------

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
            for _ in range(min(waiting, limit - len(found))):
                slot = self.next_available % self.size
                at = slot if self._listed is None else self.memory.load16(self._listed + 2 * slot)
                found.append(self._chain(at))
                self.next_available = (self.next_available + 1) % self.wrap
        self.wants_notice(False)
        return found

    def waiting(self) -> int:
        """How many chains the driver has announced that were not taken. Raises RingError."""
        waiting = (self.announced() - self.next_available) % self.wrap
        if waiting > self.size:
            raise RingError(f"{waiting} chains are announced in a ring of {self.size}")
        return waiting

    def untake(self, count: int) -> None:
        """The chains that were taken last, so many, are to be taken again."""
        self.next_available = (self.next_available - count) % self.wrap

    def _chain(self, head: int) -> Parts:
        shape, strict, flags = self.shape, self.shape.strict, self.shape.entry.fixed_flags
        unpack, each, address_at, length_at, length_bits, flags_at, writes, goes_on, in_table, bare = (
            self._how
        )
        readable: list[tuple[int, int]] = []
        writable: list[tuple[int, int]] = []
        table: bytes | None = None
        count, left, index = self.size, self.size, head
        is_written = False
        while True:
            if index >= count or not left:
                raise RingError(f"descriptor {index} of {count}, with {left} left")
            left -= 1
            if table is None:
                copy = self.memory.read(self.descriptors + each * index, each)
            else:
                copy = table[each * index : each * (index + 1)]
            fields = unpack(copy)
            if flags_at is not None:
                flags = fields[flags_at]
            if bare is not None and fields[bare[0]] & bare[1] == bare[2]:
                return Parts(head, [], [], copy)
            length = self.buffer_size() if length_at is None else fields[length_at] & length_bits
            buffer = fields[address_at], length
            if flags & in_table:
                if table is not None:
                    raise RingError("an indirect table within another one")
                table = self._table(*buffer, flags)
                count = left = len(table) // each
                index = 0
                continue
            if flags & writes:
                is_written = True
            elif is_written:
                raise RingError("a readable descriptor behind a writable one")
            if length and (strict or self.is_buffer(*buffer)):
                (writable if flags & writes else readable).append(buffer)
            if not flags & goes_on:
                break
            index = fields[shape.entry.following]
        if strict:
            for part in (readable, writable):
                if not self.memory.has(part) or sum([size for _, size in part]) > shape.most_bytes:
                    raise RingError("a chain whose bytes are not RAM, or too many")
        return Parts(head, readable, writable, copy[shape.entry.told :])

    def is_buffer(self, address: int, length: int) -> bool:
        """Whether these bytes, which are some, are a buffer, where one that is none does not matter."""
        return address != 0 and self.memory.has([(address, length)])

    def _table(self, address: int, length: int, flags: int) -> bytes:
        """A table of entries, which is read once."""
        entry = self.shape.entry
        count, odd = divmod(length, self.shape.areas[0].each)
        if not self.flags & INDIRECT or flags & entry.goes_on or odd or not 0 < count <= entry.most_in_table:
            raise RingError(f"an indirect table of {length} bytes, with flags {flags:#x}")
        if not self.memory.has([(address, length)]):
            raise RingError(f"an indirect table at {address:#x}, which is not RAM")
        return self.memory.read(address, length)
