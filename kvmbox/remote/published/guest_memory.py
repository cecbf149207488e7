"""Guest memory for devices: the VMM checks and copies, and no device process maps guest memory.

A model asks with effects. The VMM checks the effect against the grant and against RAM, copies the bytes, and
returns the result as a request, a follow-up of the access (`effect_calls`). So memory is an input of a model.
It is journaled, recorded, replayed and fuzzed like all other input.

Who is at fault. The guest programs addresses and sizes. So a range that is not completely RAM is a fault of
the guest: nothing is copied, and the model gets an error, like the master abort of a real device. The model
decides how much to ask for at a time. So more bytes or ranges than the grant permits, or more requests for
one access than `MAX_FOLLOW_UPS`, break the protocol and are a fault of the device process.

A range [address, address + size) is RAM if it is completely inside one region. A range cannot wrap around: a
range beyond the last address is not RAM. Ranges may overlap, and are copied one after the other. A range of
zero bytes is valid at any address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import Content, Memory, Resource
from kvmbox.contract.model import BAD_ADDRESS, BUSY, DONE
from kvmbox.remote.channel.effect_calls import CanWait, FollowUp
from kvmbox.wire import protocol

ZEROS: Final = bytes(1 << 16)


def answer(kind: int, device: int, tag: int, status: int, payload: bytes = b"") -> FollowUp:
    """A MEMORY or COMPLETE request."""
    return FollowUp(kind, device, tag | status << 32, payload=payload)


def settled(
    device: int, tag: int, status: int, settle: Callable[[int], bool | Sequence[Any]] | None
) -> Sequence[FollowUp | CanWait]:
    """What follows when an order or errand is done, under the lock of the device's channel: COMPLETE, unless
    its `settle` (`host.disk.transfers`) wants something else.
    """
    told = settle is None or settle(status)
    if isinstance(told, bool):
        return [answer(protocol.COMPLETE, device, tag, status)] if told else []
    return told


Submit = Callable[[int, int, Sequence[tuple[int, int]], bool], bool]
"""Takes a transfer: its tag, offset, ranges and direction. False if too many of the device are pending."""


class MemoryAccess(Value):
    """A `Memory` grant and the RAM that it is for."""

    grant: Memory
    ram: GuestMemory

    def allows(self, ranges: Sequence[tuple[int, int]]) -> bool:
        """Whether the grant has room for an effect with these ranges."""
        size = sum(size for _, size in ranges)
        return len(ranges) <= self.grant.max_ranges and size <= self.grant.max_bytes

    def read(self, device: int, tag: int, ranges: Sequence[tuple[int, int]]) -> list[FollowUp]:
        """What a `MemoryRead` asks for."""
        if not self.ram.has(ranges):
            return [answer(protocol.MEMORY, device, tag, BAD_ADDRESS)]
        return [answer(protocol.MEMORY, device, tag, DONE, self.ram.gather(ranges))]

    def write(self, device: int, address: int, data: bytes, tag: int) -> list[FollowUp]:
        """What a `MemoryWrite` does; told of if it has a tag."""
        good = self.ram.has([(address, len(data))])
        if good and data:
            self.ram.write(address, data)
        if not tag:
            return []
        return [answer(protocol.COMPLETE, device, tag, DONE if good else BAD_ADDRESS)]


class TransferAccess(Value):
    """A `Resource` grant, and what takes transfers of it."""

    grant: Resource
    submit: Submit

    def allows(self, ranges: Sequence[tuple[int, int]], *, to_guest: bool) -> bool:
        """Whether the grant has room for such a transfer."""
        grant = self.grant
        size = sum(size for _, size in ranges)
        return (to_guest or grant.writable) and len(ranges) <= grant.max_ranges and size <= grant.max_bytes

    def start(
        self, device: int, tag: int, offset: int, ranges: Sequence[tuple[int, int]], to_guest: int
    ) -> list[FollowUp]:
        """What a `Transfer` does; COMPLETE tells of it later, or at once if there is no room."""
        if self.submit(tag, offset, ranges, bool(to_guest)):
            return []
        return [answer(protocol.COMPLETE, device, tag, BUSY)]


class ContentAccess:
    """A `Content` grant and the RAM that its bytes may go to."""

    def __init__(self, grant: Content, ram: GuestMemory) -> None:
        self.grant = grant
        self._ram = ram
        self._parts = [memoryview(part) for part in grant.parts]

    def allows(self, ranges: Sequence[tuple[int, int]], *, to_guest: bool) -> bool:
        """Whether the grant has room for such a transfer."""
        size = sum(size for _, size in ranges)
        return to_guest and len(ranges) <= self.grant.max_ranges and size <= self.grant.max_bytes

    def pieces(self, offset: int, size: int) -> Iterator[memoryview | bytes]:
        """The bytes [offset, offset + size), in order; nothing of the parts is copied."""
        for part in self._parts:
            piece = part[offset : offset + size]
            offset = max(0, offset - len(part))
            size -= len(piece)
            if piece:
                yield piece
        while size:
            yield (zeros := ZEROS[:size])
            size -= len(zeros)

    def start(
        self, device: int, tag: int, offset: int, ranges: Sequence[tuple[int, int]], _to_guest: int
    ) -> list[FollowUp]:
        """What a `Transfer` does, at once."""
        if not self._ram.has(ranges):
            return [answer(protocol.COMPLETE, device, tag, BAD_ADDRESS)]
        for address, size in ranges:
            position = address
            for piece in self.pieces(offset, size):
                self._ram.write(position, piece)
                position += len(piece)
            offset += size
        return [answer(protocol.COMPLETE, device, tag, DONE)]

    def read(self, device: int, tag: int, offset: int, size: int) -> list[FollowUp]:
        """What a `ContentRead` asks for."""
        return [answer(protocol.MEMORY, device, tag, DONE, b"".join(self.pieces(offset, size)))]
