"""The contract of `model` for devices that move bulk data: windows to a medium, and virtqueues.

A medium is a disk or another store of the host. Neither its bytes nor an address of guest memory reach the
device.
"""

from __future__ import annotations

from kvmbox.contract.model import Effect, MemoryModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, Protocol
else:
    Protocol = object


class Window(Effect):
    """The next `size` bytes at the device's data register are bytes of a medium, from `offset` on.

    The VMM serves these accesses, and the bytes never pass through the device. `resource` counts the device's
    resources as `Transfer` does.

    To the guest (`to_guest` is 1): the VMM reads the bytes first. `complete` tells of `DONE` when the guest
    can read them, and of `MOVED` when it has read the last one. From the guest: `complete` tells of `MOVED`
    when the guest has written the last byte, and then whether the medium has them: `DONE`, `FAILED`, …

    `to_guest` may have more bits: `QUIET_END`, nothing follows from `MOVED` but what the guest can read, and
    `QUIET_START`, nor from `DONE`. Then the VMM may tell the device later, before anything else that it is
    told. With `RISES` output pin 0 rises at `DONE`: then the VMM raises it.

    A device has one window. Another `Window` ends it; one of no bytes leaves the device with none. What is
    still in a window that ends is lost. A window that has failed has ended.
    """

    __slots__ = ("offset", "resource", "size", "tag", "to_guest")
    __match_args__ = ("tag", "resource", "offset", "size", "to_guest")

    def __init__(self, tag: int, resource: int, offset: int, size: int, to_guest: int) -> None:
        self.tag = tag
        self.resource = resource
        self.offset = offset
        self.size = size
        self.to_guest = to_guest


TO_GUEST: Final = 1
QUIET_END: Final = 2
QUIET_START: Final = 4
RISES: Final = 8
MOST_TO_GUEST: Final = 15
"""Of `Window.to_guest`."""


class Aperture(Effect):
    """The device's window in guest memory, or a part of it: `size` bytes from `address` on.

    With `is_plain` 0 accesses of the guest are to come to the device from now on, and `memory` brings the
    bytes that were there, in pieces: the tag of each is its offset. With 1 the window may be plain memory.
    If the VMM makes it so, with bytes from the snapshot of the device, `complete` says that it has.
    """

    __slots__ = ("address", "is_plain", "size")
    __match_args__ = ("is_plain", "address", "size")

    def __init__(self, is_plain: int, address: int, size: int) -> None:
        self.is_plain = is_plain
        self.address = address
        self.size = size


class FrameBuffer(Effect):
    """There is a frame buffer from now on, and the guest sees it at its own address.

    If `shown` is 1, the guest also sees the 64 KiB number `bank` of it at 0xA0000. If 0, RAM is there, which
    reads as zero. The first `clear` bytes of the frame buffer are set to zero.
    """

    __slots__ = ("bank", "clear", "shown")
    __match_args__ = ("bank", "shown", "clear")

    def __init__(self, bank: int, shown: int, clear: int) -> None:
        self.bank = bank
        self.shown = shown
        self.clear = clear


class Flush(Effect):
    """What was written to a medium is to reach stable storage: `complete` tells when it has."""

    __slots__ = ("resource", "tag")
    __match_args__ = ("tag", "resource")

    def __init__(self, tag: int, resource: int) -> None:
        self.tag = tag
        self.resource = resource


class Queue(Effect):
    """The guest has published a split virtqueue: `size` entries, and the addresses of its three areas. The
    VMM takes these from the guest's own writes, and from here only that the queue is live.

    `flags` are features that the driver has accepted: `EVENT_INDEX`, `INDIRECT`. Of 0 entries: there is no
    queue `index` any more, and what it has handed out is void.
    """

    __slots__ = ("available", "descriptors", "flags", "index", "size", "used")
    __match_args__ = ("index", "size", "flags", "descriptors", "available", "used")

    def __init__(
        self, index: int, size: int, flags: int, descriptors: int, available: int, used: int
    ) -> None:
        self.index = index
        self.size = size
        self.flags = flags
        self.descriptors = descriptors
        self.available = available
        self.used = used


class Walk(Effect):
    """The chains of queue `index` are wanted whenever the guest notifies: `chains` brings them, at most
    `count` at a time, and comes in place of the notification. 0: no longer.

    What goes back to the guest interrupts it by output pin `pin`.
    """

    __slots__ = ("count", "index", "pin")
    __match_args__ = ("index", "count", "pin")

    def __init__(self, index: int, count: int, pin: int = 0) -> None:
        self.index = index
        self.count = count
        self.pin = pin


class Connect(Effect):
    """Queue `index`, whose chains are wanted (`Walk`), and a medium of packets are connected: the VMM moves
    packets between the two, and asks the device nothing. The next `Walk` of the queue ends it.

    `to_guest` is 0: of each chain, the readable bytes behind the first `header` ones are a packet to send.
    1: each packet that comes goes into chains, `chains` at most, behind `header` bytes. These are zeros, but
    for the 2 bytes at `count_at`, if that is not 0: they say how many chains the packet has taken.
    """

    __slots__ = ("chains", "count_at", "header", "index", "resource", "to_guest")
    __match_args__ = ("index", "to_guest", "resource", "header", "count_at", "chains")

    def __init__(
        self, index: int, to_guest: int, resource: int, header: int, count_at: int, chains: int
    ) -> None:
        self.index = index
        self.to_guest = to_guest
        self.resource = resource
        self.header = header
        self.count_at = count_at
        self.chains = chains


MOST_HEADER: Final = 64
"""How many bytes may be before a packet."""


class ChainRead(Effect):
    """`size` bytes of the readable part of a chain, from `skip` on, are wanted: `memory` brings them, with
    the handle as their tag.
    """

    __slots__ = ("handle", "size", "skip")
    __match_args__ = ("handle", "skip", "size")

    def __init__(self, handle: int, skip: int, size: int) -> None:
        self.handle = handle
        self.skip = skip
        self.size = size


class ChainWrite(Effect):
    """`data` goes to the writable part of a chain, from `skip` on."""

    __slots__ = ("data", "handle", "skip")
    __match_args__ = ("handle", "skip", "data")

    def __init__(self, handle: int, skip: int, data: bytes) -> None:
        self.handle = handle
        self.skip = skip
        self.data = data


class ChainTransfer(Effect):
    """The host is to move `size` bytes between a medium, from `offset` on, and a chain, from `skip` on.

    `to_guest` is 1 for bytes that go to its writable part, 0 for those that come from its readable part.
    `complete` tells when it is done, with the handle as its tag. A chain has one transfer at a time.
    """

    __slots__ = ("handle", "offset", "resource", "size", "skip", "to_guest")
    __match_args__ = ("handle", "resource", "offset", "skip", "size", "to_guest")

    def __init__(self, handle: int, resource: int, offset: int, skip: int, size: int, to_guest: int) -> None:
        self.handle = handle
        self.resource = resource
        self.offset = offset
        self.skip = skip
        self.size = size
        self.to_guest = to_guest


class ChainServe(Effect):
    """All that is left to do with a chain: move bytes as `ChainTransfer` does, write one byte at `place` of
    its writable part, and give it back. Its handle is void now, and nobody is told.

    The byte is `good` if the bytes were moved, otherwise `bad`. The guest is told how many bytes from the
    beginning of the writable part were written, as VIRTIO 1.2, 2.7.8.2 wants it.
    """

    __slots__ = ("bad", "good", "handle", "offset", "place", "resource", "size", "skip", "to_guest")
    __match_args__ = ("handle", "resource", "offset", "skip", "size", "to_guest", "place", "good", "bad")

    def __init__(
        self,
        handle: int,
        resource: int,
        offset: int,
        skip: int,
        size: int,
        to_guest: int,
        place: int,
        good: int,
        bad: int,
    ) -> None:
        self.handle = handle
        self.resource = resource
        self.offset = offset
        self.skip = skip
        self.size = size
        self.to_guest = to_guest
        self.place = place
        self.good = good
        self.bad = bad


class ChainUsed(Effect):
    """A chain goes back to the guest, with `written` bytes in its writable part. Its handle is void now.

    InterruptStatus tells of it, and the pin of the queue (`Walk`) rises if the guest wants an interrupt for
    that.
    """

    __slots__ = ("handle", "written")
    __match_args__ = ("handle", "written")

    def __init__(self, handle: int, written: int) -> None:
        self.handle = handle
        self.written = written


class ConfigChanged(Effect):
    """The configuration of a device with queues has changed, or it needs a reset: InterruptStatus tells of
    it, and output pin `pin` rises.
    """

    __slots__ = ("pin",)
    __match_args__ = ("pin",)

    def __init__(self, pin: int) -> None:
        self.pin = pin


EVENT_INDEX: Final = 1 << 0
"""Of a queue: each side names the index at which the other one is to notify it (VIRTIO 1.2, 2.7.10)."""
INDIRECT: Final = 1 << 1
"""Of a queue: a descriptor may refer to a table of descriptors (VIRTIO 1.2, 2.7.5.3)."""


class Chain:
    """A buffer that the guest has made available in a queue. Its name is `handle`; there is no address.

    `readable` and `writable` are the lengths of its two parts in bytes. `head` is the beginning of the
    readable part, `CHAIN_HEAD` bytes at most.
    """

    __slots__ = ("handle", "head", "readable", "writable")

    def __init__(self, handle: int, readable: int, writable: int, head: bytes) -> None:
        self.handle = handle
        self.readable = readable
        self.writable = writable
        self.head = head


CHAIN_HEAD: Final = 32


class QueueModel(MemoryModel, Protocol):
    """A model that was granted queues in guest memory."""

    def chains(self, now: int, index: int, chains: list[Chain], status: int) -> None:
        """What is available in queue `index`, since a `Walk`. `status` is DONE, or BAD_ADDRESS: what the
        guest has published is not a queue. Then there will be no more chains of it, until it is published
        anew.
        """
