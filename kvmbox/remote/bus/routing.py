"""Pure routing: which device answers at a port or address, and how a wide access is split into bytes.

One `Bus` serves I/O ports, and another one memory-mapped devices. A bus does not know KVM or channels. A
device gets an access as a whole in two cases: the access is one byte wide; or its width is a natural size of
the registers, the device claims all of its bytes, and the number of the first register is a multiple of the
size. Every other access is split into byte accesses at consecutive addresses, lowest byte first. Each byte is
routed separately, as an ISA bus does for an 8-bit card. If no device answers, a read gives all ones and a
write is dropped. Both are counted.

Consecutive bytes that one mapping claims are asked for at once, if the device can be asked so, and so are the
accesses of a string instruction. The device gets the same accesses in the same order either way.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import NamedTuple, Protocol

from kvmbox.base.value_classes import Value


class SteadyValues(Protocol):
    """Values that reads are known to give, because the device has said so."""

    @property
    def entries(self) -> Sized:
        """Those that were ever known."""
        ...

    def value(self, word: int, offset: int, index: int, *, late: bool) -> int | None:
        """What the read gives, if that is known. `late`: writes wait that may be late."""
        ...


class FastPath(NamedTuple):
    """The call that makes an access: `access(word, offset, value, limit)`, with 0 for the value of a read.

    `steady` may know what a read gives.
    """

    access: Callable[[int, int, int, int], int]
    word: int
    limit: int
    steady: SteadyValues | None = None


class BusDevice(Protocol):
    """What the bus routes to: offsets are relative to the device's first register."""

    natural_sizes: frozenset[int]

    def read(self, offset: int, size: int) -> int:
        """The value read, unsigned, within `size` bytes."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """Store `value`, unsigned, within `size` bytes."""
        ...


class RoutedDevice(Protocol):
    """A device whose accesses can be made by a call that is known beforehand: what the run loop wants."""

    def fast_path(self, is_read: bool, size: int) -> FastPath:
        """How accesses of this kind are made without the detour through `read` and `write`."""
        ...

    def count(self, is_read: bool, accesses: int) -> None:
        """So many accesses took the fast path. On any thread."""
        ...


class InBytes(RoutedDevice, Protocol):
    """A device, for accesses of one width beyond a byte that it gets as bytes, the lowest first."""

    def read(self, offset: int) -> int:
        """The value of the registers from `offset` on."""
        ...

    def write(self, offset: int, value: int) -> None:
        """Store `value` in the registers from `offset` on."""
        ...


class DirectDevice(RoutedDevice, Protocol):
    """A device that can be asked for the several accesses of one instruction at once, if it says so."""

    at_once: bool

    def in_bytes(self, size: int) -> InBytes:
        """This device, for accesses of `size` bytes, 2 to 8, each a byte access of its own."""
        ...

    def read_string(self, offset: int, size: int, count: int) -> bytes:
        """What `count` reads of `size` bytes at `offset` give, one after another."""
        ...

    def write_string(self, offset: int, size: int, data: bytes) -> None:
        """Write the values in `data`, of `size` bytes each, one after another at `offset`."""
        ...


class Mapping(Value):
    """`count` addresses from `first`, the registers from `offset` on of `device`.

    `direct` is the same device, if it can be asked directly.
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

    def register(self, address: int) -> int:
        """The register of the device at `address`."""
        return address - self.first + self.offset

    def takes_whole(self, address: int, size: int) -> bool:
        """Whether the device gets an access as a whole, all of whose bytes the mapping claims."""
        return size == 1 or (size in self.device.natural_sizes and not self.register(address) % size)


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

    def watch(self, changed: Callable[[], None]) -> bool:
        """Let `changed` be called at each change from now on. Returns whether there may be any."""
        del changed
        return False

    def find(self, address: int) -> Mapping | None:
        """The mapping that claims `address`, or None."""
        for mapping in self._mappings:
            if mapping.first <= address < mapping.end:
                return mapping
        return None

    def is_unclaimed(self, address: int, size: int) -> bool:
        """Whether no device claims any of `size` bytes at `address`."""
        return all(self.find((address + place) & self._mask) is None for place in range(size))

    def find_all(self, address: int, size: int) -> Mapping | None:
        """The mapping that claims each of `size` bytes at `address`, or None."""
        mapping = self.find(address)
        return mapping if mapping is not None and address + size <= mapping.end else None

    def find_whole(self, address: int, size: int) -> Mapping | None:
        """The mapping whose device takes this access as a whole, or None if it must be split."""
        mapping = self.find_all(address, size)
        return mapping if mapping is not None and mapping.takes_whole(address, size) else None

    def read(self, address: int, size: int) -> int:
        """What the guest reads: `size` bytes at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None:
            return mapping.device.read(mapping.register(address), size)
        value = position = 0
        while position < size:
            byte_address = (address + position) & self._mask
            target, length = self._claimed(byte_address, size - position)
            if target is None:
                self.unclaimed_reads += 1
                part = 0xFF
            elif length > 1 and target.direct is not None:
                part = target.direct.in_bytes(length).read(target.register(byte_address))
            else:
                part = target.device.read(target.register(byte_address), 1)
            value |= part << 8 * position
            position += length
        return value

    def write(self, address: int, size: int, value: int) -> None:
        """The guest writes `size` bytes at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None:
            mapping.device.write(mapping.register(address), size, value)
            return
        position = 0
        while position < size:
            byte_address = (address + position) & self._mask
            target, length = self._claimed(byte_address, size - position)
            part = value >> 8 * position & ((1 << 8 * length) - 1)
            if target is None:
                self.unclaimed_writes += 1
            elif length > 1 and target.direct is not None:
                target.direct.in_bytes(length).write(target.register(byte_address), part)
            else:
                target.device.write(target.register(byte_address), 1, part)
            position += length

    def _claimed(self, address: int, size: int) -> tuple[Mapping | None, int]:
        """Who claims `address`, and how many of `size` bytes from there on are asked for at once."""
        target = self.find(address)
        if target is None or target.direct is None or not target.direct.at_once:
            return target, 1
        return target, min(size, target.end - address)

    def read_string(self, address: int, size: int, count: int) -> bytes:
        """What the guest reads with a string instruction: `count` times `size` bytes at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None and mapping.direct is not None and mapping.direct.at_once:
            return mapping.direct.read_string(mapping.register(address), size, count)
        if self.is_unclaimed(address, size):
            self.unclaimed_reads += size * count
            return b"\xff" * (size * count)
        return b"".join([self.read(address, size).to_bytes(size, "little") for _ in range(count)])

    def write_string(self, address: int, size: int, data: bytes) -> None:
        """The guest writes the values in `data`, of `size` bytes each, one after another at `address`."""
        mapping = self.find_whole(address, size)
        if mapping is not None and mapping.direct is not None and mapping.direct.at_once:
            mapping.direct.write_string(mapping.register(address), size, data)
            return
        for start in range(0, len(data), size):
            self.write(address, size, int.from_bytes(data[start : start + size], "little"))
