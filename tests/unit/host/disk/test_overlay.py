"""The overlay of a disk: what was written is read, in whole sectors, and within its bound."""

from __future__ import annotations

import errno
import random
import sys
import threading

import pytest

from kvmbox.host.disk.overlay import CLUSTER, SECTOR, Overlay


def sector(number: int) -> bytes:
    return bytes([number & 0xFF]) * SECTOR


def merged(overlay: Overlay, below: bytes, offset: int, size: int) -> bytes:
    data = bytearray(below[offset : offset + size])
    last = 0
    for position, piece in overlay.pieces(offset, size):
        assert last <= position
        data[position : position + len(piece)] = piece
        last = position + len(piece)
    assert len(data) == size
    return bytes(data)


def test_overlay_with_nothing_has_no_pieces_and_no_memory() -> None:
    overlay = Overlay(1 << 20)
    assert overlay.pieces(0, 1 << 20) == []
    assert overlay.used == 0


def test_one_sector_leaves_its_neighbours_to_the_file() -> None:
    overlay = Overlay(1 << 20)
    overlay.write(3 * SECTOR, sector(7))
    assert overlay.pieces(0, CLUSTER) == [(3 * SECTOR, sector(7))]
    assert overlay.pieces(3 * SECTOR + 10, 20) == [(0, b"\7" * 20)]
    assert overlay.pieces(4 * SECTOR, SECTOR) == []


def test_adjacent_sectors_are_one_piece() -> None:
    overlay = Overlay(1 << 20)
    for number in (0, 1, 5):
        overlay.write(number * SECTOR, sector(number))
    assert overlay.pieces(0, CLUSTER) == [(0, sector(0) + sector(1)), (5 * SECTOR, sector(5))]


def test_any_sequence_of_writes_reads_as_on_a_disk() -> None:
    chance = random.Random(3)
    size = 16 * CLUSTER
    below = chance.randbytes(size)
    disk = bytearray(below)
    overlay = Overlay(size)
    for _ in range(500):
        start = chance.randrange(size // SECTOR)
        count = min(chance.randrange(1, 20), size // SECTOR - start)
        data = chance.randbytes(count * SECTOR)
        overlay.write(start * SECTOR, data)
        disk[start * SECTOR : (start + count) * SECTOR] = data
        offset = chance.randrange(size)
        wanted = chance.randrange(size - offset + 1)
        assert merged(overlay, below, offset, wanted) == disk[offset : offset + wanted]
    assert overlay.used <= size


def test_write_beyond_the_bound_has_no_space_and_stores_nothing() -> None:
    overlay = Overlay(2 * CLUSTER)
    overlay.write(0, sector(1))
    with pytest.raises(OSError, match="full") as caught:
        overlay.write(SECTOR, bytes(2 * CLUSTER))
    assert caught.value.errno == errno.ENOSPC
    assert overlay.pieces(0, 4 * CLUSTER) == [(0, sector(1))]
    overlay.write(SECTOR, bytes(2 * CLUSTER - SECTOR))
    assert overlay.used == 2 * CLUSTER


def test_full_overlay_still_takes_what_it_has_a_place_for() -> None:
    overlay = Overlay(CLUSTER)
    overlay.write(10 * CLUSTER, sector(1))
    overlay.write(10 * CLUSTER + SECTOR, sector(2))
    assert overlay.pieces(10 * CLUSTER, CLUSTER) == [(0, sector(1) + sector(2))]


@pytest.mark.parametrize(("offset", "size"), [(1, SECTOR), (0, SECTOR - 1), (SECTOR, SECTOR + 1)])
def test_part_of_a_sector_is_refused(offset: int, size: int) -> None:
    with pytest.raises(OSError, match="whole sectors") as caught:
        Overlay(1 << 20).write(offset, bytes(size))
    assert caught.value.errno == errno.EINVAL


def test_disk_of_10_tb_costs_what_is_written() -> None:
    overlay = Overlay(1 << 20)
    overlay.write(10 * 10**12 // SECTOR * SECTOR, sector(9))
    assert overlay.used == CLUSTER


def test_two_threads_that_write_to_one_cluster_lose_nothing() -> None:
    overlay, clusters = Overlay(1 << 24), range(3000)

    def write(place: int) -> None:
        for number in clusters:
            overlay.write(number * CLUSTER + place * SECTOR, sector(place + 1))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=write, args=(place,)) for place in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    both = [(0, sector(1) + sector(2))]
    assert [number for number in clusters if overlay.pieces(number * CLUSTER, CLUSTER) != both] == []
