"""All small rings: every table of a few descriptors over a small alphabet, and what a chain of it is by the
words of VIRTIO 1.2, 2.7, by recursion. A walker shares nothing with that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from kvmbox.contract import bulk_data
from kvmbox.remote.published.walker import Parts, PublishedRing, RingError
from tests.support.virtio_driver import DESCRIPTOR, INDIRECT, NEXT, WRITE, Driver, FlatMemory

BUFFER = 0x8000
TABLE = 0xA000


def graphs(size: int) -> Iterator[list[tuple[int, int, int, int]]]:
    """All tables of `size` descriptors over a small alphabet."""
    places = ((BUFFER, 1), (BUFFER, 0), (1 << 63, 1)) if size < 4 else ((BUFFER, 1),)
    flags = (0, WRITE, NEXT, NEXT | WRITE)
    nexts = range(size + 1)
    one = [
        (*place, flag, following)
        for place in places
        for flag in flags
        for following in (nexts if flag & NEXT else (0,))
    ]
    if size < 4:
        one += [(TABLE, DESCRIPTOR, INDIRECT, 0), (TABLE, 2 * DESCRIPTOR, INDIRECT | NEXT, 0)]
    return map(list, itertools.product(one, repeat=size))


def expected(table: list[tuple[int, int, int, int]], head: int) -> Parts | None:
    """What a chain is by the words of 2.7, by recursion; None for what is none."""

    def follow(number: int, seen: frozenset[int]) -> list[tuple[int, int, int]] | None:
        if number >= len(table) or number in seen:
            return None
        address, length, flags, following = table[number]
        if flags & INDIRECT:
            return None if flags & NEXT else [(BUFFER, 2, WRITE)]
        if not flags & NEXT:
            return [(address, length, flags)]
        rest = follow(following, seen | {number})
        return None if rest is None else [(address, length, flags), *rest]

    found = follow(head, frozenset())
    if found is None or any(length and address != BUFFER for address, length, _ in found):
        return None
    kinds = [flags & WRITE for _, _, flags in found]
    if kinds != sorted(kinds):
        return None
    return Parts(
        head,
        [(address, length) for address, length, flags in found if length and not flags & WRITE],
        [(address, length) for address, length, flags in found if length and flags & WRITE],
    )


def walk_all(
    size: int,
    memory: FlatMemory,
    new_ring: Callable[..., PublishedRing],
    begin: Callable[[], Any] = lambda: None,
) -> tuple[int, int]:
    """Walk all rings of so many entries: how many had a chain, and how many were none. Each has to be what it
    is by definition. `begin` is called before each walk.
    """
    driver = Driver(memory, size)
    good = bad = 0
    for table in graphs(size):
        for head in range(size + 1) if size < 4 else (0,):
            driver.chain((BUFFER, 2, WRITE), table=TABLE)
            for number, descriptor in enumerate(table):
                driver.describe(number, *descriptor)
            driver.set_index(0)
            driver.offer(head)
            ring = new_ring(0, size, bulk_data.INDIRECT, *driver.areas)
            want = expected(table, head)
            begin()
            try:
                found = ring.take(1)
            except RingError:
                assert want is None, (table, head)
                bad += 1
            else:
                assert found == [want], (table, head)
                good += 1
            assert ring.next_available == (want is not None)
    return good, bad
