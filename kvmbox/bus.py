"""Pure routing: which device answers at a port or address, and how a wide access is split into bytes.

One `Bus` serves I/O ports, and another one memory-mapped devices. A bus does not know KVM or channels. A
device gets an access as a whole in two cases: the access is one byte wide; or its width is a natural size of
the registers, the device claims all of its bytes, and the number of the first register is a multiple of the
size. Every other access is split into byte accesses at consecutive addresses, lowest byte first. Each byte is
routed separately, as an ISA bus does for an 8-bit card. If no device answers, a read gives all ones and a
write is dropped. Both are counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from kvmbox.lean import Value


class FastPath(NamedTuple):
    """The call that makes an access: `access(word, offset, value, limit)`, with 0 for the value of a read."""

    access: Callable[[int, int, int, int], int]
    word: int
    limit: int


class BusDevice(Protocol):
    """What the bus routes to: offsets are relative to the device's first register."""

    natural_sizes: frozenset[int]

    def read(self, offset: int, size: int) -> int:
        """The value read, unsigned, within `size` bytes."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Store `value`, unsigned, within `size` bytes."""
        ...


class DirectDevice(Protocol):
    """A device whose accesses can be made by a call that is known beforehand: what the run loop wants."""

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        """How accesses of this kind are made without the detour through `read` and `write`."""
        ...

    def count(self, is_read: bool, accesses: int) -> None:
        """So many accesses took the fast path. On any thread."""
        ...


class Mapping(Value):
    """`count` addresses from `first`, the registers from `offset` on of `device`.

    `direct` is the same device, if it has fast paths.
    """

    first: int
    count: int
    device: BusDevice
    offset: int = 0
    direct: DirectDevice | None = None

    @property
    def end(self) -> int:
        """The first address behind the mapping."""
        return self.first + self.count


class Bus:
    """An address space of devices. Addresses wrap at `address_bits`, as a byte beyond the last one does."""

    def __init__(self, address_bits: int) -> None:
        self._mask = (1 << address_bits) - 1
        self._mappings: list[Mapping] = []
        self.unclaimed_reads = 0
        self.unclaimed_writes = 0

    def attach(self, mapping: Mapping) -> None:
        """Add a mapping; ValueError if it is empty, beyond the address space, or overlaps another one."""
        if mapping.count <= 0 or mapping.first < 0 or mapping.end > self._mask + 1:
            raise ValueError(f"mapping {mapping.first:#x}+{mapping.count:#x} is not in the address space")
        for other in self._mappings:
            if mapping.first < other.end and other.first < mapping.end:
                raise ValueError(f"mapping {mapping.first:#x} overlaps the one at {other.first:#x}")
        self._mappings.append(mapping)

    def find(self, address: int) -> Mapping | None:
        """The mapping that claims `address`, or None."""
        for mapping in self._mappings:
            if mapping.first <= address < mapping.end:
                return mapping
        return None

    def is_unclaimed(self, address: int, size: int) -> bool:
        """Whether no device claims any of `size` bytes at `address`."""
        return all(self.find((address + place) & self._mask) is None for place in range(size))

    def find_whole(self, address: int, size: int) -> Mapping | None:
        """The mapping whose device takes this access in one call, or None if it must be split."""
        mapping = self.find(address)
        if mapping is None:
            return None
        if size == 1:
            return mapping
        if (
            size in mapping.device.natural_sizes
            and not (address - mapping.first + mapping.offset) % size
            and address + size <= mapping.end
        ):
            return mapping
        return None

    def read(self, address: int, size: int) -> int:
        """What the guest reads: `size` bytes at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None:
            return mapping.device.read(address - mapping.first + mapping.offset, size)
        value = 0
        for position in range(size):
            byte_address = (address + position) & self._mask
            target = self.find(byte_address)
            if target is None:
                self.unclaimed_reads += 1
                byte = 0xFF
            else:
                byte = target.device.read(byte_address - target.first + target.offset, 1)
            value |= byte << 8 * position
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None:
            mapping.device.write(address - mapping.first + mapping.offset, size, value)
            return
        for position in range(size):
            byte_address = (address + position) & self._mask
            target = self.find(byte_address)
            if target is None:
                self.unclaimed_writes += 1
            else:
                target.device.write(
                    byte_address - target.first + target.offset, 1, value >> 8 * position & 0xFF
                )
