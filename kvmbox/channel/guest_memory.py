"""What a device may do with guest memory, checked and done by the VMM: no device process ever maps it.

A model asks by effects. The VMM checks what it asks for against its grant and against RAM, copies, and gives
back what it found as a request, a follow-up of the access (`follow_up`). So memory is one more input of a
model: it is journaled, recorded, replayed and fuzzed like all others.

Who is to blame for what. The guest programs addresses and sizes, so a range that is not RAM, or not wholly,
is the guest's doing: nothing is copied and the model is told, as a real device is told of a master abort. How
much it asks for at a time is the model's doing: more bytes or ranges than the grant has, or more questions
for one access than `MAX_FOLLOW_UPS`, is a protocol break of the device process.

A range [address, address + size) is RAM if it lies wholly in one region of it. It cannot wrap: an address and
a size that reach beyond the last address are not RAM. Ranges may overlap: they are copied one after the
other, in order. A range of no bytes is good wherever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvmbox.board import Memory, Resource
from kvmbox.channel.follow_up import FollowUp
from kvmbox.devices.model import BAD_ADDRESS, BUSY, DONE
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory
from kvmbox.wire import protocol


def answer(kind: int, device: int, tag: int, status: int, payload: bytes = b"") -> FollowUp:
    """A MEMORY or COMPLETE request."""
    return FollowUp(kind, device, tag | status << 32, payload=payload)


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
