"""The walker of virtqueues: what VIRTIO 1.2, 2.7 says, with every byte of the ring hostile.

`docs/properties.md` compares these with the harnesses of Firecracker and vm-virtio.
"""

from __future__ import annotations

import itertools
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmbox.contract import bulk_data
from kvmbox.contract.device_spec import Queues
from kvmbox.contract.ring_shape import VIRTIO_SPLIT
from kvmbox.devices.virtio.vmm import Virtqueue
from kvmbox.remote.published.walker import Parts, RingError
from tests.support.halves import Half, built_halves
from tests.support.small_rings import BUFFER, TABLE, walk_all
from tests.support.virtio_driver import DESCRIPTOR, INDIRECT, NEXT, WRITE, Driver, FlatMemory, RealMemory

BOTH = bulk_data.EVENT_INDEX | bulk_data.INDIRECT


def ring_of(driver: Driver, flags: int = 0) -> Virtqueue:
    ring = Virtqueue(driver.memory, driver.size, flags, *driver.areas)
    ring.next_available = ring.next_used = driver.index
    return ring


def rig(size: int = 4, flags: int = 0, *, index: int = 0) -> tuple[Driver, Virtqueue]:
    driver = Driver(FlatMemory(), size, index=index)
    return driver, ring_of(driver, flags)


def offered(*parts: tuple[int, int, int], size: int = 4, flags: int = 0) -> tuple[Driver, Virtqueue]:
    driver, ring = rig(size, flags)
    driver.chain(*parts)
    driver.offer(0)
    return driver, ring


# --- What is a queue ----------------------------------------------------------------------------------------


class AllRam(FlatMemory):
    """Every address is RAM."""

    def contains(self, address: int, size: int) -> bool:
        return True


def is_ring(size: int, *areas: int) -> bool:
    try:
        Virtqueue(AllRam(), size, 0, *areas)
    except RingError:
        return False
    return True


def test_queue_is_a_ring_of_a_power_of_two_and_of_no_other_size() -> None:
    sizes = [size for size in range(-1, 1 << 17) if is_ring(size, 0x10, 0x2, 0x4)]
    assert sizes == [1 << power for power in range(16)]


def test_queue_is_a_ring_at_aligned_addresses_and_at_no_other_ones() -> None:
    places = itertools.product(range(0x1000, 0x1020), range(0x2000, 0x2004), range(0x3000, 0x3008))
    aligned = [areas for areas in places if is_ring(4, *areas)]
    assert len(aligned) == 2 * 2 * 2
    assert not any(areas[0] % 16 or areas[1] % 2 or areas[2] % 4 for areas in aligned)


@pytest.mark.parametrize(
    ("descriptors", "available", "used"),
    [
        *((0x1000 + step, 0x2000, 0x3000) for step in (1, 2, 4, 8)),
        (0x1000, 0x2001, 0x3000),
        *((0x1000, 0x2000, 0x3000 + step) for step in (1, 2)),
        (0x10000 - 48, 0x2000, 0x3000),
        (0x1000, 0x10000 - 12, 0x3000),
        (0x1000, 0x2000, 0x10000 - 36),
        (0x1000, 0x2000, (1 << 64) - 4),
        ((1 << 64) - 16, 0x2000, 0x3000),
        (0x4000, 0x2000, 0x3000),
        (0x1000, 0x4FF0, 0x3000),
        (0x1000, 0x2000, 0x3FE0),
    ],
)
def test_queue_that_is_misplaced_is_no_ring(descriptors: int, available: int, used: int) -> None:
    memory = FlatMemory(holes=[(0x4000, 0x1000)])

    with pytest.raises(RingError, match=r"aligned|RAM"):
        Virtqueue(memory, 4, 0, descriptors, available, used)
    assert not memory.fetched
    assert not memory.stored


# --- Chains -------------------------------------------------------------------------------------------------


def test_take_gives_what_is_available_and_advances_by_that() -> None:
    driver, ring = rig(8, index=0xFFFE)
    for number in range(8):
        driver.describe(number, BUFFER + 16 * number, 16)

    assert ring.take(8) == []
    driver.offer(3, 1, 7, 0, 2)
    assert [chain.head for chain in ring.take(2)] == [3, 1]
    assert ring.next_available == 0  # 0xFFFE and two more
    assert [chain.head for chain in ring.take(8)] == [7, 0, 2]
    assert ring.take(8) == []


def test_chain_has_its_readable_and_writable_ranges_in_order() -> None:
    _, ring = offered((BUFFER, 16, 0), (BUFFER + 64, 8, 0), (BUFFER + 32, 4, WRITE), (BUFFER, 1, WRITE))

    assert ring.take(1) == [Parts(0, [(BUFFER, 16), (BUFFER + 64, 8)], [(BUFFER + 32, 4), (BUFFER, 1)])]


def test_descriptor_of_no_bytes_is_valid_anywhere_and_adds_nothing() -> None:
    _, ring = offered(((1 << 64) - 1, 0, 0), (BUFFER, 4, 0), (1 << 40, 0, WRITE))

    assert ring.take(1) == [Parts(0, [(BUFFER, 4)], [])]


def test_readable_behind_writable_is_refused() -> None:
    for length in (0, 1):
        _, ring = offered((BUFFER, length, WRITE), (BUFFER, 1, 0))

        with pytest.raises(RingError, match="readable descriptor behind"):
            ring.take(1)


@pytest.mark.parametrize("size", [1, 2, 4, 256])
def test_loop_is_refused_after_as_many_descriptors_as_there_are(size: int) -> None:
    driver, ring = rig(size)
    for number in range(size):
        driver.describe(number, BUFFER, 1, NEXT, (number + 1) % size)
    driver.offer(0)
    driver.memory.fetched.clear()

    with pytest.raises(RingError, match="0 left"):
        ring.take(1)
    assert len([one for one in driver.memory.fetched if one[1] == DESCRIPTOR]) == size


def test_chain_of_all_descriptors_is_no_loop() -> None:
    _, ring = offered(*[(BUFFER + 4 * number, 4, 0) for number in range(8)], size=8)

    assert len(ring.take(1)[0].readable) == 8


@pytest.mark.parametrize("following", [4, 5, 0x7FFF, 0xFFFF])
def test_descriptor_beyond_the_table_is_refused(following: int) -> None:
    driver, ring = rig()
    driver.describe(0, BUFFER, 1, NEXT, following)
    driver.offer(0)
    with pytest.raises(RingError, match=f"descriptor {following} of 4"):
        ring.take(1)

    driver, ring = rig()
    driver.offer(following)
    with pytest.raises(RingError, match=f"descriptor {following} of 4"):
        ring.take(1)


@pytest.mark.parametrize(
    ("address", "length"),
    [
        (0xFFFF, 2),
        (0x1_0000, 1),
        ((1 << 64) - 1, 1),
        ((1 << 64) - 1, 2),
        ((1 << 64) - 0x1000, 0xFFFF_FFFF),
        (BUFFER, 0xFFFF_FFFF),
        (0xC000, 1),
        (0xBFFF, 2),
        (0xBFFF, 0x2000),
        (0xCFFF, 2),
    ],
)
@pytest.mark.parametrize("flags", [0, WRITE])
def test_bytes_that_are_not_ram_as_a_whole_are_refused(address: int, length: int, flags: int) -> None:
    driver = Driver(FlatMemory(holes=[(0xC000, 0x1000)]), 4)
    ring = ring_of(driver)
    driver.chain((BUFFER, 4, 0), (address, length, flags))
    driver.offer(0)

    with pytest.raises(RingError, match="not RAM"):
        ring.take(1)


def test_four_gibibytes_in_one_direction_are_refused() -> None:
    class Endless(FlatMemory):
        def contains(self, address: int, size: int) -> bool:
            return super().contains(address, size) or address == 1 << 40

    driver = Driver(Endless(), 4)
    ring = ring_of(driver)
    driver.chain((1 << 40, 1 << 31, 0), (1 << 40, (1 << 31) - 1, 0), (BUFFER, 1, WRITE))
    driver.offer(0)
    assert len(ring.take(1)[0].readable) == 2

    driver.chain((1 << 40, 1 << 31, 0), (1 << 40, (1 << 31) - 1, 0), (BUFFER, 1, 0))
    driver.offer(0)
    with pytest.raises(RingError, match="too many"):
        ring.take(1)


# --- Indirect tables ----------------------------------------------------------------------------------------


def test_indirect_table_is_read_once_as_a_whole() -> None:
    driver, ring = offered((TABLE, 3 * DESCRIPTOR, INDIRECT), flags=bulk_data.INDIRECT)
    driver.chain((BUFFER, 16, 0), (BUFFER, 8, WRITE), (BUFFER + 8, 1, WRITE), table=TABLE)
    driver.memory.after_read = lambda address: (
        driver.memory.poke(TABLE, "QIHH", 1 << 60, 1, INDIRECT, 9) if address == TABLE else None
    )

    assert ring.take(1) == [Parts(0, [(BUFFER, 16)], [(BUFFER, 8), (BUFFER + 8, 1)])]
    assert driver.memory.fetched.count((TABLE, 3 * DESCRIPTOR)) == 1


def test_indirect_table_may_stand_behind_other_descriptors() -> None:
    driver, ring = offered((BUFFER, 2, 0), (TABLE, DESCRIPTOR, INDIRECT | WRITE), flags=bulk_data.INDIRECT)
    driver.chain((BUFFER, 1, WRITE), table=TABLE)

    assert ring.take(1) == [Parts(0, [(BUFFER, 2)], [(BUFFER, 1)])]


@pytest.mark.parametrize(
    ("flags", "length", "granted"),
    [
        (INDIRECT, DESCRIPTOR, 0),
        (INDIRECT | NEXT, DESCRIPTOR, bulk_data.INDIRECT),
        (INDIRECT, 0, bulk_data.INDIRECT),
        (INDIRECT, DESCRIPTOR - 1, bulk_data.INDIRECT),
        (INDIRECT, DESCRIPTOR + 8, bulk_data.INDIRECT),
        (INDIRECT, (VIRTIO_SPLIT.entry.most_in_table + 1) * DESCRIPTOR, bulk_data.INDIRECT),
        (INDIRECT, 0xFFFF_FFF0, bulk_data.INDIRECT),
    ],
)
def test_indirect_table_that_may_not_be_is_refused(flags: int, length: int, granted: int) -> None:
    driver, ring = rig(flags=granted)
    driver.describe(0, TABLE, length, flags, 1)
    driver.describe(1, BUFFER, 1)
    driver.chain((BUFFER, 1, 0), table=TABLE)
    driver.offer(0)

    with pytest.raises(RingError, match="indirect table"):
        ring.take(1)
    assert not [one for one in driver.memory.fetched if one[0] == TABLE]


def test_indirect_table_within_another_one_is_refused() -> None:
    driver, ring = offered((TABLE, DESCRIPTOR, INDIRECT), flags=bulk_data.INDIRECT)
    driver.chain((TABLE, DESCRIPTOR, INDIRECT), table=TABLE)

    with pytest.raises(RingError, match="within another one"):
        ring.take(1)


@pytest.mark.parametrize("address", [0xFFF8, 1 << 40, (1 << 64) - 16])
def test_indirect_table_that_is_not_ram_is_refused(address: int) -> None:
    _, ring = offered((address, DESCRIPTOR, INDIRECT), flags=bulk_data.INDIRECT)

    with pytest.raises(RingError, match="not RAM"):
        ring.take(1)


def test_indirect_table_may_be_as_long_as_the_largest_queue_and_loops_are_bounded_by_it() -> None:
    driver, ring = offered(
        (TABLE, VIRTIO_SPLIT.entry.most_in_table * DESCRIPTOR, INDIRECT), flags=bulk_data.INDIRECT
    )
    driver.chain(*[(BUFFER, 1, 0)] * VIRTIO_SPLIT.entry.most_in_table, table=TABLE)
    assert len(ring.take(1)[0].readable) == VIRTIO_SPLIT.entry.most_in_table

    driver.describe(VIRTIO_SPLIT.entry.most_in_table - 1, BUFFER, 1, NEXT, 0, table=TABLE)
    driver.offer(0)
    with pytest.raises(RingError, match="0 left"):
        ring.take(1)


# --- Indices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 1, 0xFFFF])
@pytest.mark.parametrize("size", [1, 4])
def test_available_index_more_than_the_size_ahead_is_refused(index: int, size: int) -> None:
    driver, ring = rig(size, index=index)
    driver.set_index(index + size & 0xFFFF)
    assert len(ring.take(64)) == size

    for ahead in (size + 1, size + 2, 0x7FFF, 0xFFFF):
        driver, ring = rig(size, index=index)
        driver.set_index(index + ahead & 0xFFFF)
        with pytest.raises(RingError, match=f"{ahead} chains"):
            ring.take(1)


def test_what_the_guest_writes_to_the_used_ring_is_never_read() -> None:
    driver, ring = offered((BUFFER, 1, WRITE), flags=BOTH)
    driver.memory.poke(driver.used, "HHIIH", 0xFFFF, 0x1234, 99, 99, 7)

    (chain,) = ring.take(1)
    ring.give_back(chain.head, 1)
    ring.wants_interrupt()
    assert driver.memory.peek(driver.used + 2, "H") == (1,)
    assert driver.memory.peek(driver.used + 4, "II") == (0, 1)
    assert not [one for one in driver.memory.fetched if driver.used <= one[0] < driver.end]


def test_every_byte_is_read_once() -> None:
    driver, ring = rig(4, BOTH)
    driver.chain((BUFFER, 1, 0), (TABLE, 2 * DESCRIPTOR, INDIRECT))
    driver.chain((BUFFER, 4, 0), (BUFFER, 8, WRITE), table=TABLE)
    driver.offer(0)

    # After each read, what was read becomes the worst that it can be.
    def spoil(address: int) -> None:
        _, size = driver.memory.fetched[-1]
        driver.memory.data[address : address + size] = b"\xff" * size

    driver.memory.after_read = spoil
    assert ring.take(1) == [Parts(0, [(BUFFER, 1), (BUFFER, 4)], [(BUFFER, 8)])]
    assert len(driver.memory.fetched) == len(set(driver.memory.fetched))


# --- Used ring and notifications ----------------------------------------------------------------------------


def test_used_element_is_written_before_the_index_and_advances_it_by_one() -> None:
    driver, ring = rig(4, index=0xFFFF)

    ring.give_back(3, 17)
    assert driver.memory.stored == [(driver.used + 4 + 8 * 3, 8), (driver.used + 2, 2)]
    assert driver.take_used() == [(3, 17)]
    assert ring.next_used == 0
    ring.give_back(1, 0)
    assert driver.take_used() == [(1, 0)]


@pytest.mark.parametrize(("flags", "wanted"), [(0, True), (1, False), (2, True), (0xFFFF, False)])
def test_interrupt_is_wanted_as_2_7_7_2_says(flags: int, wanted: bool) -> None:
    driver, ring = rig()
    driver.set_flags(flags)
    ring.give_back(0, 0)

    assert ring.wants_interrupt() is wanted


@pytest.mark.parametrize("index", [0, 5, 0x7FFF, 0xFFFF])
def test_interrupt_is_wanted_at_the_event_index_and_nowhere_else(index: int) -> None:
    driver, ring = rig(4, bulk_data.EVENT_INDEX, index=index)
    driver.set_flags(1)  # which the event index replaces
    ring.give_back(0, 0)
    wanted = []
    for event in range(1 << 16):
        driver.want_interrupt_at(event)
        wanted += [event] if ring.wants_interrupt() else []
    assert wanted == [index]


def test_drained_queue_asks_for_a_notice_of_the_next_chain() -> None:
    driver, ring = rig(4, bulk_data.EVENT_INDEX, index=0xFFFF)
    driver.offer(0, 1)
    assert len(ring.take(3)) == 2
    assert driver.notice_at == 1 == driver.index
    driver.offer(2)
    ring.take(1)
    assert driver.notice_at == 1  # which has passed: no notice

    driver, ring = rig(4)
    driver.offer(0, 1)
    assert len(ring.take(2)) == 2
    assert driver.used_flags == 1  # there may be more: no notice
    assert ring.take(2) == []
    assert driver.used_flags == 0


@pytest.mark.parametrize("flags", [0, bulk_data.EVENT_INDEX])
def test_chain_that_comes_while_notices_are_switched_on_is_not_lost(flags: int) -> None:
    driver, ring = rig(4, flags)
    late = [2, 3]

    class Late(FlatMemory):
        def store16(self, address: int, value: int) -> None:
            if late:  # just before the driver can see that it is to notify
                driver.offer(late.pop())
            super().store16(address, value)

    memory = Late()
    memory.data = driver.memory.data
    ring.memory = memory
    assert [chain.head for chain in ring.take(4)] == [3, 2]
    assert driver.notice_at == 2 if flags else driver.used_flags == 0


# --- All of them --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", built_halves(), ids=["pure", "compiled"][: len(built_halves())])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_small_rings_exhaustively(half: Half, size: int) -> None:
    memory = RealMemory(1 << 16) if half.is_compiled else FlatMemory()
    queues = half.queues(Queues(1), cast(Any, memory), lambda _settle: False)
    good, bad = walk_all(size, cast(Any, memory), queues.new_ring)
    assert good > 0
    assert bad > 0


class Dice:
    """Descriptors of a hostile guest, from bytes: telling values more often than others."""

    ADDRESSES = (0, BUFFER, TABLE, 0x1000, 0xFFFF, 0xFFF0, 0x1_0000, 1 << 32, (1 << 64) - 1, (1 << 64) - 16)
    LENGTHS = (0, 1, 15, 16, 32, 48, 0x1000, 0xFFFF_FFF0, 0xFFFF_FFFF)


descriptors = st.tuples(
    st.one_of(st.sampled_from(Dice.ADDRESSES), st.integers(0, (1 << 64) - 1)),
    st.one_of(st.sampled_from(Dice.LENGTHS), st.integers(0, 0xFFFF_FFFF)),
    st.integers(0, 7),
    st.integers(0, 20),
)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([8, 16]),
    st.integers(0, 3),
    st.lists(descriptors, min_size=16, max_size=16),
    st.lists(descriptors, min_size=3, max_size=3),
    st.lists(st.integers(0, 17), max_size=20),
    st.integers(0, 0xFFFF),
)
def test_hostile_ring_gives_ram_or_an_error_and_touches_nothing_else(
    size: int,
    flags: int,
    table: list[tuple[int, int, int, int]],
    indirect: list[tuple[int, int, int, int]],
    heads: list[int],
    index: int,
) -> None:
    driver, ring = rig(size, flags, index=index)
    for number in range(size):
        driver.describe(number, *table[number])
    for number, one in enumerate(indirect):
        driver.describe(number, *one, table=TABLE)
    driver.offer(*heads)
    memory = driver.memory
    try:
        taken = ring.take(64)
    except RingError:
        pass
    else:
        assert len(taken) == len(heads) <= size
        for chain in taken:
            for ranges in (chain.readable, chain.writable):
                assert all(length and memory.contains(address, length) for address, length in ranges)
            ring.give_back(chain.head, 1)
            ring.wants_interrupt()
    assert all(driver.used <= place < driver.end for place, _ in memory.stored)
    assert len(memory.fetched) <= 4 + len(heads) * (2 + size + 1)
