"""The shapes of rings that a guest publishes: what an entry says, and how the next one is found. Pure data.

`remote.published.walker` walks all of them, and `tests/property/test_published_memory.py` holds for each: a
chip that publishes memory declares the shape here, and has a walker with that.
"""

from __future__ import annotations

from kvmbox.base.value_classes import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class Area(Value):
    """A part of a ring in guest memory, at a multiple of `aligned`: `fixed` bytes, `each` for every entry."""

    aligned: int
    fixed: int
    each: int


class Entry(Value):
    """What an entry of a ring says: `form` unpacks it to fields.

    `address`, `length` and `flags` are fields of that, by number. Of the length the bits `length_bits` count.
    Without the field, registers say how long a buffer is. Without flags, `fixed_flags` are those of all
    entries. Of the flags, `writes` says that the device may write to the buffer, `goes_on` that the field
    `following` is the number of an entry that belongs to this one, and `table` that the buffer is a table of
    entries, of `most_in_table` at most. An entry whose field `bare[0]` has `bare[2]` in the bits `bare[1]`
    has no buffer. The device is told the bytes of an entry from `told` on, and all of one that is bare.
    """

    form: str
    address: int
    length: int | None = None
    length_bits: int = 0
    flags: int | None = None
    fixed_flags: int = 0
    writes: int = 0
    goes_on: int = 0
    following: int = 0
    table: int = 0
    most_in_table: int = 0
    bare: tuple[int, int, int] | None = None
    told: int = 16


class RingShape(Value):
    """What the walker has to know of a ring.

    `areas` are the parts of the ring, its entries the first one. It has at most `most` entries, a power of 2
    if `by_twos`. The guest announces entries by an index that counts to `wraps`, or 0: to the size of the
    ring. `listed` is where the number of each announced entry is, 2 bytes: in which area, and from which byte
    on. None: entries are announced in their order.

    `strict`: a buffer that is not RAM makes the whole ring none. Otherwise it counts as no buffer, as one at
    address 0 does. A chain has at most `most_bytes` in one direction.
    """

    name: str
    areas: tuple[Area, ...]
    most: int
    entry: Entry
    by_twos: bool = False
    wraps: int = 0
    listed: tuple[int, int] | None = None
    strict: bool = False
    most_bytes: int = (1 << 32) - 1


# VIRTIO 1.2: a descriptor, 2.7.5; descriptors, available ring and used ring, 2.7. A table is as large as the
# largest queue at most.
_DESCRIPTOR: Final = Entry(
    "<QIHH", 0, 1, 0xFFFF_FFFF, 2, goes_on=1, writes=2, table=4, following=3, most_in_table=256
)
_OF_QUEUE: Final = (Area(16, 0, 16), Area(2, 6, 2), Area(4, 6, 8))
VIRTIO_SPLIT: Final = RingShape(
    "virtio-split", _OF_QUEUE, 1 << 15, _DESCRIPTOR, by_twos=True, wraps=1 << 16, listed=(1, 4), strict=True
)

# 317453: descriptors that receive, 3.2.3, of which RCTL says how large their buffers are; those that send,
# 3.3.3 and 3.3.7, and contexts, 3.3.6, which are extended ones of type 0.
_OF_E1000: Final = (Area(16, 0, 16),)
E1000_RECEIVE: Final = RingShape(
    "e1000-receive", _OF_E1000, 1 << 16, Entry("<QQ", 0, fixed_flags=1, writes=1)
)
_SENDS: Final = Entry("<QQ", 0, 1, 0xFFFF, bare=(1, 1 << 29 | 15 << 20, 1 << 29), told=8)
E1000_SEND: Final = RingShape("e1000-send", _OF_E1000, 1 << 16, _SENDS)

SHAPES: Final = (VIRTIO_SPLIT, E1000_RECEIVE, E1000_SEND)
"""All of them."""
