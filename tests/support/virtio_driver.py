"""The driver's side of a split virtqueue (VIRTIO 1.2, 2.7), honest or not, on memory that tells what is read.

It shares no code with the walker.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from kvmbox.base.memory import GuestMemory

NEXT, WRITE, INDIRECT = 1, 2, 4
DESCRIPTOR = 16


class FlatMemory:
    """RAM from 0 to `size`, but for `holes`. `fetched` has every (address, size) that was read.

    `after_read` is called after each read, with its address: there the guest changes its mind.
    """

    def __init__(self, size: int = 1 << 16, holes: Sequence[tuple[int, int]] = ()) -> None:
        self.data = bytearray(size)
        self.holes = list(holes)
        self.fetched: list[tuple[int, int]] = []
        self.stored: list[tuple[int, int]] = []
        self.after_read: Callable[[int], None] = lambda _address: None

    def contains(self, address: int, size: int) -> bool:
        if not 0 <= address <= address + size <= len(self.data):
            return False
        return not any(address < start + length and start < address + size for start, length in self.holes)

    def has(self, ranges: Sequence[tuple[int, int]]) -> bool:
        return all(size == 0 or self.contains(address, size) for address, size in ranges)

    def read(self, address: int, size: int) -> bytes:
        assert self.contains(address, size), f"a read of {size} bytes at {address:#x}, which is no RAM"
        data = bytes(self.data[address : address + size])
        self.fetched.append((address, size))
        self.after_read(address)
        return data

    def gather(self, ranges: Sequence[tuple[int, int]]) -> bytes:
        return b"".join(self.read(address, size) for address, size in ranges if size)

    def write(self, address: int, data: bytes) -> None:
        assert self.contains(address, len(data)), f"a write of {len(data)} bytes at {address:#x}"
        self.stored.append((address, len(data)))
        self.data[address : address + len(data)] = data

    def load16(self, address: int) -> int:
        assert address % 2 == 0
        return int.from_bytes(self.read(address, 2), "little")

    def store16(self, address: int, value: int) -> None:
        assert address % 2 == 0
        self.write(address, value.to_bytes(2, "little"))

    # The driver's own accesses, which nobody notes.

    def poke(self, address: int, form: str, *values: int) -> None:
        struct.pack_into("<" + form, self.data, address, *values)

    def peek(self, address: int, form: str) -> tuple[int, ...]:
        return struct.unpack_from("<" + form, self.data, address)


class RealMemory(GuestMemory):
    """Guest memory as a run has it."""

    def poke(self, address: int, form: str, *values: int) -> None:
        self.write(address, struct.pack("<" + form, *values))

    def peek(self, address: int, form: str) -> tuple[int, ...]:
        return struct.unpack("<" + form, self.read(address, struct.calcsize("<" + form)))

    @property
    def data(self) -> bytes:
        return self.read(0, self.size)


class Driver:
    """A queue of `size` entries in memory, from `base` on. `index` is the available index, as it goes on."""

    def __init__(self, memory: FlatMemory, size: int, base: int = 0x1000, *, index: int = 0) -> None:
        self.memory = memory
        self.size = size
        self.descriptors = base
        self.available = base + DESCRIPTOR * size
        self.used = (self.available + 6 + 2 * size + 3) & ~3
        self.end = self.used + 6 + 8 * size
        self.index = index
        self.seen = index
        self.set_index(index)
        self.memory.poke(self.used + 2, "H", index)

    @property
    def areas(self) -> tuple[int, int, int]:
        return self.descriptors, self.available, self.used

    def describe(
        self, number: int, address: int, length: int, flags: int = 0, following: int = 0, *, table: int = 0
    ) -> None:
        """Write a descriptor of the queue, or of an indirect table at `table`."""
        place = (table or self.descriptors) + DESCRIPTOR * number
        self.memory.poke(place, "QIHH", address, length, flags, following)

    def chain(self, *parts: tuple[int, int, int], first: int = 0, table: int = 0) -> None:
        """Descriptors from `first` on that make one chain of (address, length, flags) each."""
        for number, (address, length, flags) in enumerate(parts, first):
            last = number == first + len(parts) - 1
            self.describe(number, address, length, flags if last else flags | NEXT, number + 1, table=table)

    def offer(self, *heads: int) -> None:
        """Make chains available."""
        for head in heads:
            self.memory.poke(self.available + 4 + 2 * (self.index % self.size), "H", head)
            self.set_index(self.index + 1 & 0xFFFF)

    def set_index(self, index: int) -> None:
        self.index = index
        self.memory.poke(self.available + 2, "H", index)

    def set_flags(self, flags: int) -> None:
        self.memory.poke(self.available, "H", flags)

    def want_interrupt_at(self, index: int) -> None:
        """used_event: 2.7.10."""
        self.memory.poke(self.available + 4 + 2 * self.size, "H", index & 0xFFFF)

    @property
    def notice_at(self) -> int:
        """avail_event: 2.7.10."""
        return self.memory.peek(self.used + 4 + 8 * self.size, "H")[0]

    @property
    def used_flags(self) -> int:
        return self.memory.peek(self.used, "H")[0]

    def take_used(self) -> list[tuple[int, int]]:
        """(descriptor, bytes) of what came back since the last time."""
        (index,) = self.memory.peek(self.used + 2, "H")
        found = []
        while self.seen != index:
            place = self.used + 4 + 8 * (self.seen % self.size)
            found.append(self.memory.peek(place, "II"))
            self.seen = self.seen + 1 & 0xFFFF
        return found  # type: ignore[return-value]  # two numbers each
