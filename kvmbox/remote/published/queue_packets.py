"""Packets between virtqueues and a medium that keeps them apart, such as the wire of a network interface.

A device says once how chains and packets belong together (`Connect`). Then packets pass it by. Those that the
guest sends go to the medium in the thread that notifies. Those that come are put into chains by the main
thread, under the lock of the channel. So a received packet wakes no process, and a sent one neither.

A chain that is too short for a packet stays where it is, as it does for a device that has not looked at it.
The chains of one packet go back together: a driver that has seen the first one expects the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract.bulk_data import MOST_HEADER, Connect
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.walker import Parts, PublishedRing
from kvmbox.wire.chains import MAX_CHAINS

CONNECTION: Final = Struct("<5B")
"""Of a state: what `Connect` has said, but for the queue. 0 chains: there is no connection."""


class Connection(Value):
    """What `Connect` has asked for, and the medium."""

    asked: Connect
    medium: MediumAccess

    @property
    def to_guest(self) -> bool:
        """Whether packets go to the guest."""
        return bool(self.asked.to_guest)

    def has_buffers(self) -> None:
        """The guest has made chains available."""
        self.medium.store.has_buffers()  # type: ignore[attr-defined]  # see `connection_of`

    def state(self) -> bytes:
        """For `connection_of`."""
        one = self.asked
        return CONNECTION.pack(one.chains, one.to_guest, one.resource, one.header, one.count_at)

    def send(self, ring: PublishedRing, ram: GuestMemory, taken: Sequence[Parts]) -> bool:
        """Send the packets of chains, and give these back: whether the guest wants an interrupt for that."""
        header, medium = self.asked.header, self.medium
        raises = False
        for parts in taken:
            size = sum([size for _, size in parts.readable]) - header
            if size > 0 and medium.allows(size, to_guest=False):
                medium.writes += 1
                medium.store.write(0, ram.gather(parts.readable)[header:])
            ring.give_back(parts.head, 0)
            raises |= ring.wants_interrupt()
        return raises

    def put(self, ring: PublishedRing, ram: GuestMemory, packet: bytes) -> int | None:
        """Put a packet into chains: into how many. 0: there will never be any for it; None: not now.

        Raises RingError.
        """
        asked = self.asked
        found: list[Parts] = []
        room, wanted = 0, asked.header + len(packet)
        while room < wanted:
            more = ring.take(1) if len(found) < asked.chains else None
            if not more:
                ring.untake(len(found))
                return 0 if more is None else None
            found += more
            room += sum(size for _, size in more[0].writable)
        data = bytearray(asked.header)
        if asked.count_at:
            data[asked.count_at : asked.count_at + 2] = len(found).to_bytes(2, "little")
        data += packet
        used, left = [], memoryview(data)
        for parts in found:
            before = len(left)
            for address, size in parts.writable:
                ram.write(address, left[:size])
                left = left[size:]
            used.append((parts.head, before - len(left)))
        ring.give_back_together(used)
        return len(found)


def connection_of(asked: Connect, medium: MediumAccess | None) -> Connection | None:
    """The connection, if there may be such a one."""
    if medium is None or not medium.is_of_packets or not medium.allows(0, to_guest=bool(asked.to_guest)):
        return None
    fits = asked.header <= MOST_HEADER and (not asked.count_at or asked.count_at + 2 <= asked.header)
    return Connection(asked, medium) if fits and 0 < asked.chains <= MAX_CHAINS else None
