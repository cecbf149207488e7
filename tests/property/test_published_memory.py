"""Published memory: what holds of each declared ring, whatever a guest writes into it, and whenever.

The memory gives made-up bytes, keeps a copy of each read, and another CPU of the guest changes it after any
of them. The oracle decodes the copies by the declaration alone. What the walker reads must be what the copies
call for, each once, and what it hands out must be in them. So nothing is looked at a second time.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import CHAIN_HEAD, INDIRECT, ChainRead, ChainUsed, ChainWrite, Queue, Walk
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.ring_shape import E1000_RECEIVE, E1000_SEND, SHAPES, VIRTIO_SPLIT, RingShape
from kvmbox.devices.e1000.board import DescriptorRings
from kvmbox.devices.e1000.model import CTRL, HEAD, LEN, RCTL, RDBAL, RECEIVED, RESET, SENT, TAIL, TCTL, TDBAL
from kvmbox.devices.e1000.ring_watch import RingWatch
from kvmbox.devices.e1000.vmm import DescriptorRing
from kvmbox.devices.virtio.vmm import Virtqueue
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.remote.published.walker import Parts, PublishedRing, RingError
from tests.support.virtio_driver import FlatMemory

RAM: Final = 0x6000
HOLE: Final = (0x3000, 0x800)
BASE: Final = 0x1000
BUFFER_SIZE: Final = 256  # of a receive ring; RCTL says so
MADE_UP: Final = (0, BASE, 0x2000, 0x2FF0, 0x3000, 0x3801, RAM - 16, RAM, 1 << 32, (1 << 64) - 8)


class Raced(FlatMemory):
    """Memory that keeps copies of what is read, and changes behind them."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(RAM, [HOLE])
        self.copies: list[tuple[int, bytes]] = []
        self.race: Callable[[], None] = lambda: None
        self.data[:] = dice.randbytes(RAM)

    def read(self, address: int, size: int) -> bytes:
        data = super().read(address, size)
        self.copies.append((address, data))
        self.race()
        return data


def _virtqueue(memory: Raced, dice: random.Random) -> PublishedRing:
    size = 1 << dice.randrange(5)
    available = BASE + 16 * size
    ring = Virtqueue(
        memory, size, dice.choice((0, INDIRECT)), BASE, available, available + 6 + 2 * size + 3 & ~3
    )
    ring.next_available = ring.next_used = dice.randrange(1 << 16)
    return ring


def _descriptors(index: int, base: int, control: int) -> Callable[[Raced, random.Random], PublishedRing]:
    def make(memory: Raced, dice: random.Random) -> PublishedRing:
        watch, size = RingWatch(), dice.choice((1, 2, 8, 16))
        watch.write(base + TAIL, dice.randrange(size + 1))
        watch.write(control, 3 << 16)  # the smallest buffers
        return DescriptorRing(memory, watch, index, size, BASE, dice.randrange(size))

    return make


MAKERS: Final = {
    VIRTIO_SPLIT.name: _virtqueue,
    E1000_RECEIVE.name: _descriptors(RECEIVED, RDBAL, RCTL),
    E1000_SEND.name: _descriptors(SENT, TDBAL, TCTL),
}
EACH: Final = pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])


def entry(shape: RingShape, dice: random.Random) -> bytes:
    """An entry that looks like one, mostly: of random bytes, none would get far."""
    values = [dice.getrandbits(64) for _ in struct.unpack(shape.entry.form, bytes(16))]
    values[shape.entry.address] = (
        dice.choice(MADE_UP) if dice.random() < 0.3 else 0x4000 + dice.randrange(0x1000)
    )
    if shape.entry.length is not None:
        values[shape.entry.length] = dice.choice((0, 1, 16, 32, 48, 4112, 0xFFFF_FFFF, dice.getrandbits(64)))
    if shape.entry.flags is not None:
        values[shape.entry.flags] = dice.choice((0, 1, 1, 2, 3, 4, 4, 5, 6, 7))
        values[shape.entry.following] = dice.randrange(18)
    sizes = [struct.calcsize(f"<{letter}") for letter in shape.entry.form[1:]]
    return b"".join(
        [
            (value % (1 << 8 * size)).to_bytes(size, "little")
            for value, size in zip(values, sizes, strict=True)
        ]
    )


def make_up(memory: Raced, ring: PublishedRing, dice: random.Random) -> None:
    """Entries, heads and tables that a guest may have written."""
    for place in (BASE, *range(0x4000, 0x5000, 16)):
        memory.data[place : place + 16] = entry(ring.shape, dice)
    for number in range(ring.size):
        memory.data[BASE + 16 * number : BASE + 16 * number + 16] = entry(ring.shape, dice)
    if ring.shape.listed is not None:
        for slot in range(ring.size):
            memory.poke(ring.available + 4 + 2 * slot, "H", dice.randrange(ring.size + (dice.random() < 0.1)))
        index = ring.next_available + dice.randrange(ring.size + 1 + (dice.random() < 0.1))
        memory.poke(ring.available + 2, "H", index & 0xFFFF)


class Wrong(AssertionError):
    """The walker has read, or found, what the copies do not call for."""


def judge(ring: PublishedRing, slot: int, copies: Iterator[tuple[int, bytes]]) -> Parts:
    """The chain that these copies call for. StopIteration where it is none by them, or they end before."""
    shape = ring.shape

    def copy(address: int, size: int) -> bytes:
        found = next(copies)
        if (found[0], len(found[1])) != (address, size):
            raise Wrong(f"{len(found[1])} bytes at {found[0]:#x} were read, not {size} at {address:#x}")
        return found[1]

    head = slot
    if shape.listed is not None:
        head = int.from_bytes(copy(ring.available + shape.listed[1] + 2 * slot, 2), "little")
    readable: list[tuple[int, int]] = []
    writable: list[tuple[int, int]] = []
    table, index, count = None, head, ring.size
    left = count
    while index < count and left:
        left -= 1
        one = copy(BASE + 16 * index, 16) if table is None else table[16 * index : 16 * index + 16]
        fields = struct.unpack(shape.entry.form, one)
        flags = shape.entry.fixed_flags if shape.entry.flags is None else fields[shape.entry.flags]
        length = (
            BUFFER_SIZE
            if shape.entry.length is None
            else fields[shape.entry.length] & shape.entry.length_bits
        )
        if flags & shape.entry.table:
            table, index = copy(fields[shape.entry.address], length), 0
            left = count = length // 16
            continue
        if shape.entry.bare and fields[shape.entry.bare[0]] & shape.entry.bare[1] == shape.entry.bare[2]:
            return Parts(head, [], [], one)
        buffer = fields[shape.entry.address], length
        is_ram = FlatMemory(RAM, [HOLE]).contains(*buffer)
        if length and (shape.strict or (buffer[0] and is_ram)):
            (writable if flags & shape.entry.writes else readable).append(buffer)
        if not flags & shape.entry.goes_on:
            return Parts(head, readable, writable, one[shape.entry.told :])
        index = fields[shape.entry.following]
    raise StopIteration


def test_every_declaration_has_a_walker_here() -> None:
    assert MAKERS.keys() == {shape.name for shape in SHAPES}


@EACH
@given(seed=st.integers(0, 1 << 32), racing=st.sampled_from([0.0, 0.1, 0.5]))
@settings(max_examples=400, deadline=None)
def test_walk_uses_one_copy_of_each_entry_and_ends(shape: RingShape, seed: int, racing: float) -> None:
    dice = random.Random(seed)
    memory = Raced(dice)
    ring = MAKERS[shape.name](memory, dice)
    assert ring.shape is shape
    make_up(memory, ring, dice)
    fixed, most = len(shape.areas) - 1, ring.size + shape.entry.most_in_table + 4

    def race() -> None:
        if dice.random() < racing:
            place = BASE + 16 * dice.randrange(ring.size)
            memory.data[place : place + 16] = entry(shape, dice)
            make_up(memory, ring, dice)

    memory.race = race
    taken: list[Parts] = []
    for _ in range(4):
        slot = ring.next_available % ring.size
        memory.copies.clear()
        try:
            found = ring.take(1)
        except RingError:
            found = None
        # An index may be looked at again: it says that there is more, and nothing of what is there.
        index = ring.available + 2 if fixed else None
        copies = iter([one for one in memory.copies if one[0] != index or len(one[1]) != 2])
        assert len(memory.copies) <= most
        try:
            expected = judge(ring, slot, copies)
        except StopIteration:
            assert not found, "handed out more than was read"
        else:
            assert found is None or found == [expected]
        assert next(copies, None) is None, "a byte was read that nothing calls for"
        for one in found or ():
            assert memory.has([*one.readable, *one.writable])
            taken.append(one)
        if found is None:
            return
    memory.stored.clear()
    for one in taken:
        ring.give_back(one.head, dice.choice((0, 1, dice.getrandbits(32))))
    areas = _areas(ring)
    for address, size in memory.stored:
        assert any(start <= address and address + size <= start + length for start, length in areas)


def _areas(ring: PublishedRing) -> Sequence[tuple[int, int]]:
    """Where what goes back is written: the last area of a ring."""
    last = ring.shape.areas[-1]
    return [(ring.used or BASE, last.fixed + last.each * ring.size)]


# --- The end of a publication ------------------------------------------------------------------------------

_QUEUE: Final = ((0x30, 0), (0x38, 4), (0x80, BASE), (0x90, BASE + 0x40), (0xA0, BASE + 0x60), (0x44, 1))
_RECEIVES: Final = ((RDBAL, BASE), (RDBAL + LEN, 128), (RDBAL + HEAD, 0), (RDBAL + TAIL, 1), (RCTL, 2))
_SENDS: Final = ((TDBAL, BASE), (TDBAL + LEN, 128), (TDBAL + HEAD, 0), (TDBAL + TAIL, 1), (TCTL, 2))
ENDS: Final = {
    VIRTIO_SPLIT.name: (Queues(1), 0, _QUEUE, (0x70, 0)),
    E1000_RECEIVE.name: (DescriptorRings(2, max_size=1 << 16), RECEIVED, _RECEIVES, (CTRL, RESET)),
    E1000_SEND.name: (DescriptorRings(2, max_size=1 << 16), SENT, _SENDS, (CTRL, RESET)),
}


@EACH
def test_reset_ends_all_publications_before_it_returns(shape: RingShape) -> None:
    grant, index, writes, reset = ENDS[shape.name]
    memory = FlatMemory()
    memory.poke(BASE, "QIHH", 0x4000, 64, shape.entry.writes, 0)
    memory.poke(BASE + 0x42, "H", 1)
    queues = queues_of(grant, cast(GuestMemory, memory), lambda _settle: True)
    queues.interrupts.lines = [lambda _level, _coalesced: None]
    for offset, value in writes:
        queues.note(offset, value)

    def do(effect: object) -> list[object]:
        application = queues.check(0, cast(Queue, effect), lambda _resource: None)
        assert application is not None, effect
        asked = application[0](*application[1])
        return [request(True) for request in asked or ()]

    do(Queue(index, 4, 0, 0, 0, 0))
    do(Walk(index, 1, 0))
    queues.notified(index)
    queues.next_request(has_room=True)
    (live,) = queues._live.values()
    assert live.readable or live.writable
    memory.fetched.clear()
    memory.stored.clear()

    queues.note(*reset)

    (handle,) = queues._live
    if live.writable:
        do(ChainWrite(handle, 0, b"late"))
    else:
        do(ChainRead(handle, 0, min(live.readable, CHAIN_HEAD)))
    do(ChainUsed(handle, 0))
    assert (memory.fetched, memory.stored) == ([], [])
