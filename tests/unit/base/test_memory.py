"""Guest memory: the hole below 4 GiB, bounds, what the mapping promises. Large guests cost addresses only."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.base.errors import StartError
from kvmbox.base.layout import ram_ranges
from kvmbox.base.memory import GuestMemory, GuestMemoryError

GIB = layout.GIB


@pytest.fixture
def memory() -> Iterator[GuestMemory]:
    ram = GuestMemory(2 * layout.MIB)
    yield ram
    ram.close()


@pytest.fixture
def large() -> Iterator[GuestMemory]:
    ram = GuestMemory(4 * GIB)
    yield ram
    ram.close()


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (layout.MIB, [(0, layout.MIB)]),
        (3 * GIB, [(0, 3 * GIB)]),
        (3 * GIB + 4096, [(0, 3 * GIB), (4 * GIB, 4096)]),
        (8 * GIB, [(0, 3 * GIB), (4 * GIB, 5 * GIB)]),
    ],
)
def test_ram_ranges_at_its_edges(size: int, ranges: list[tuple[int, int]]) -> None:
    assert ram_ranges(size) == ranges


@given(st.integers(1, layout.MAX_MEMORY // 4096))
def test_ram_ranges_keeps_size_and_stays_out_of_the_hole(pages: int) -> None:
    ranges = ram_ranges(pages * 4096)

    assert sum(length for _, length in ranges) == pages * 4096
    assert all(start + length <= 3 * GIB or start >= 4 * GIB for start, length in ranges)
    assert all(length > 0 for _, length in ranges)


@pytest.mark.parametrize("size", [0, -4096, 4095, 4097])
def test_memory_of_odd_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="not a positive multiple of 4096"):
        GuestMemory(size)


def test_memory_that_cannot_be_mapped_is_a_start_error_with_a_hint() -> None:
    with pytest.raises(StartError, match=r"cannot map \d+ bytes of guest memory") as caught:
        GuestMemory(1 << 60)

    assert caught.value.hint == "ask for less with --memory"


def test_fresh_memory_reads_as_zero(memory: GuestMemory) -> None:
    assert memory.read(0x7C00, 512) == bytes(512)


@pytest.mark.parametrize(
    ("start", "size"), [(0x1000, 0x2000), (0xFF0, 0x2020), (0x1FFF, 2), (0x1010, 0x20), (5, 0)]
)
def test_zero_clears_what_it_is_told_and_nothing_else(memory: GuestMemory, start: int, size: int) -> None:
    memory.fill(0, 0x5000, 0xAA)

    memory.zero(start, size)

    assert memory.read(0, 0x5000) == b"\xaa" * start + bytes(size) + b"\xaa" * (0x5000 - start - size)


def test_zero_of_fresh_memory_touches_at_most_the_pages_at_both_ends() -> None:
    memory = GuestMemory(64 * layout.MIB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    memory.zero(0x1234, 60 * layout.MIB)

    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000  # of 15,360


def test_write_then_read_gives_the_bytes_back(memory: GuestMemory) -> None:
    memory.write(0xFFF, b"across a page")

    assert memory.read(0xFFF, 13) == b"across a page"


@pytest.mark.parametrize("data", [b"\x01\x02", bytearray(b"\x01\x02"), memoryview(b"\x01\x02")])
def test_write_accepts_any_bytes_like(memory: GuestMemory, data: bytes) -> None:
    memory.write(0, data)

    assert memory.read(0, 3) == b"\x01\x02\x00"


def test_write_of_a_view_of_wide_items_counts_bytes(memory: GuestMemory) -> None:
    memory.write(0, memoryview(b"\x01\x02\x03\x04\x05\x06\x07\x08").cast("I"))

    assert memory.read(0, 9) == b"\x01\x02\x03\x04\x05\x06\x07\x08\x00"


def test_access_up_to_the_last_byte_is_ram(memory: GuestMemory) -> None:
    end = 2 * layout.MIB

    memory.write(end - 1, b"\xaa")

    assert memory.read(end - 1, 1) == b"\xaa"
    assert memory.contains(end - 1, 1)
    assert memory.contains(end, 0)
    assert not memory.contains(end - 1, 2)


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (2 * layout.MIB, 1),
        (2 * layout.MIB - 1, 2),
        (-1, 1),
        (0, -1),
        (4096, -4096),
        (1 << 70, 4),
        (-4096, 8192),
    ],
)
def test_access_outside_ram_raises_and_names_the_range(memory: GuestMemory, address: int, size: int) -> None:
    assert not memory.contains(address, size)
    with pytest.raises(GuestMemoryError, match="is not RAM"):
        memory.read(address, size)
    with pytest.raises(GuestMemoryError, match="is not RAM"):
        memory.fill(address, size)


def test_write_that_does_not_fit_changes_nothing(memory: GuestMemory) -> None:
    with pytest.raises(GuestMemoryError):
        memory.write(2 * layout.MIB - 2, b"abc")

    assert memory.read(2 * layout.MIB - 2, 2) == bytes(2)


@pytest.mark.parametrize("size", [0, 1, layout.MIB - 1, layout.MIB, layout.MIB + 1])
def test_fill_sets_exactly_its_range(memory: GuestMemory, size: int) -> None:
    memory.fill(0x1001, size, 0xCC)

    assert memory.read(0x1000, 1) == b"\x00"
    assert memory.read(0x1001, size) == b"\xcc" * size
    assert memory.read(0x1001 + size, 1) == b"\x00"


def test_region_host_address_is_where_the_bytes_are(memory: GuestMemory) -> None:
    memory.write(0x123, b"host")

    region = memory.regions[0]

    assert ctypes.string_at(region.host_address + 0x123, 4) == b"host"
    assert (region.start, region.end) == (0, 2 * layout.MIB)
    assert region.host_address % layout.PAGE_SIZE == 0


def test_memory_above_the_hole_is_another_region(large: GuestMemory) -> None:
    large.write(4 * GIB, b"high")
    large.write(3 * GIB - 3, b"low")

    assert [(r.start, r.size) for r in large.regions] == [(0, 3 * GIB), (4 * GIB, GIB)]
    assert large.read(4 * GIB, 4) == b"high"
    assert large.read(3 * GIB - 3, 3) == b"low"


@pytest.mark.parametrize(
    ("address", "size"), [(3 * GIB - 1, 2), (3 * GIB, 1), (4 * GIB - 1, 2), (2 * GIB, 3 * GIB), (5 * GIB, 1)]
)
def test_access_into_or_across_the_hole_raises(large: GuestMemory, address: int, size: int) -> None:
    assert not large.contains(address, size)
    with pytest.raises(GuestMemoryError):
        large.read(address, size)


def test_clear_makes_all_regions_zero_again(large: GuestMemory) -> None:
    large.write(0x1000, b"low")
    large.write(4 * GIB, b"high")

    large.clear()

    assert large.read(0x1000, 3) == bytes(3)
    assert large.read(4 * GIB, 4) == bytes(4)


def test_close_twice_is_harmless_and_nothing_is_ram_then() -> None:
    memory = GuestMemory(layout.MIB)

    memory.close()
    memory.close()

    assert not memory.contains(0, 1)
    with pytest.raises(GuestMemoryError):
        memory.read(0, 1)


def test_children_and_core_dumps_do_not_get_guest_memory(memory: GuestMemory) -> None:
    flags = _vm_flags(memory.regions[0].host_address)

    assert {"dc", "dd", "nr"} <= flags  # not copied on fork, not dumped, no reserve


def _vm_flags(address: int) -> set[str]:
    with open("/proc/self/smaps", encoding="ascii") as smaps:
        inside = False
        for line in smaps:
            head = line.split()[0]
            if "-" in head and not head.endswith(":"):
                low, high = (int(part, 16) for part in head.split("-"))
                inside = low <= address < high
            elif inside and head == "VmFlags:":
                return set(line.split()[1:])
    raise AssertionError("no such mapping")


def test_words_of_16_bits_are_little_endian_and_must_be_ram(memory: GuestMemory) -> None:
    memory.store16(0x102, 0xABCD)

    assert memory.read(0x100, 6) == b"\0\0\xcd\xab\0\0"
    assert memory.load16(0x102) == 0xABCD
    for address in (2 * layout.MIB, 2 * layout.MIB - 1):
        with pytest.raises(GuestMemoryError):
            memory.load16(address)
        with pytest.raises(GuestMemoryError):
            memory.store16(address, 0)
