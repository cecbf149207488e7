"""The bus: who answers at an address, and how a wide access falls into bytes."""

from __future__ import annotations

import pytest

from kvmbox.remote.bus.routing import Bus, Mapping


class Recorder:
    """A device that notes each access, and reads as its offset."""

    def __init__(self, natural_sizes: frozenset[int] = frozenset(), base: int = 0) -> None:
        self.natural_sizes = natural_sizes
        self.base = base
        self.accesses: list[tuple[object, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.accesses.append(("read", offset, size))
        return (self.base + offset) & ((1 << 8 * size) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        self.accesses.append(("write", offset, size, value))


def ports(*mappings: Mapping) -> Bus:
    bus = Bus(16)
    for mapping in mappings:
        bus.attach(mapping)
    return bus


def test_byte_access_reaches_the_register_of_its_address() -> None:
    device = Recorder()
    bus = ports(Mapping(0x60, 1, device), Mapping(0x64, 2, device, offset=1))
    assert bus.read(0x60, 1) == 0
    assert bus.read(0x65, 1) == 2
    bus.write(0x64, 1, 0xAB)
    assert device.accesses == [("read", 0, 1), ("read", 2, 1), ("write", 1, 1, 0xAB)]


@pytest.mark.parametrize(
    ("address", "claimed"), [(0x3F7, False), (0x3F8, True), (0x3FF, True), (0x400, False)]
)
def test_find_at_the_edges_of_a_mapping(address: int, claimed: bool) -> None:
    mapping = Mapping(0x3F8, 8, Recorder())
    bus = ports(mapping)
    assert bus.find(address) == (mapping if claimed else None)


def test_wide_access_to_a_byte_device_is_split_low_byte_first() -> None:
    device = Recorder(base=0x10)
    bus = ports(Mapping(0x40, 4, device))
    assert bus.read(0x40, 4) == 0x13121110
    bus.write(0x40, 4, 0xDDCCBBAA)
    assert device.accesses == [
        *(("read", offset, 1) for offset in range(4)),
        *(("write", offset, 1, value) for offset, value in enumerate((0xAA, 0xBB, 0xCC, 0xDD))),
    ]
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (0, 0)


def test_wide_access_across_devices_routes_each_byte_alone() -> None:
    low, high = Recorder(base=0x20), Recorder(base=0x70)
    bus = ports(Mapping(0x10, 2, low), Mapping(0x13, 1, high, offset=5))
    assert bus.read(0x10, 4) == 0x75FF2120
    bus.write(0x10, 4, 0x44332211)
    assert bus.unclaimed_reads == bus.unclaimed_writes == 1
    assert low.accesses[-2:] == [("write", 0, 1, 0x11), ("write", 1, 1, 0x22)]
    assert high.accesses == [("read", 5, 1), ("write", 5, 1, 0x44)]


def test_natural_size_is_taken_whole_where_it_is_aligned_in_the_device() -> None:
    device = Recorder(frozenset({2, 4}))
    bus = ports(Mapping(0xF4, 4, device))
    bus.write(0xF4, 4, 0x12345678)
    bus.write(0xF5, 2, 0xABCD)
    bus.write(0xF6, 2, 0x1234)
    assert device.accesses == [
        *[("write", 0, 4, 0x12345678), ("write", 1, 1, 0xCD), ("write", 2, 1, 0xAB)],
        ("write", 2, 2, 0x1234),
    ]
    assert bus.find_whole(0xF6, 4) is None
    assert bus.find_whole(0xF4, 2) is not None
    assert bus.find_whole(0xF5, 2) is None
    assert bus.find_whole(0xF4, 8) is None
    assert bus.find_whole(0xF7, 1) is not None
    assert bus.find_whole(0xF8, 1) is None


def test_whole_read_hands_out_what_the_device_gives() -> None:
    bus = ports(Mapping(0, 4, Recorder(frozenset({4}), base=0xCAFEBABE)))
    assert bus.read(0, 4) == 0xCAFEBABE


def test_natural_size_counts_from_the_register_and_may_not_reach_beyond_the_mapping() -> None:
    bus = ports(Mapping(0x10, 3, Recorder(frozenset({2, 4})), offset=3))
    assert bus.find_whole(0x10, 2) is None  # register 3
    assert bus.find_whole(0x11, 2) is not None  # register 4
    assert bus.find_whole(0x11, 4) is None  # registers 4 to 7, of which 6 and 7 are nobody's


@pytest.mark.parametrize("size", [1, 2, 4])
def test_unclaimed_read_gives_ones_and_each_byte_is_counted(size: int) -> None:
    bus = ports()
    assert bus.read(0x1234, size) == (1 << 8 * size) - 1
    bus.write(0x1234, size, 0)
    assert (bus.unclaimed_reads, bus.unclaimed_writes) == (size, size)


def test_access_beyond_the_last_address_wraps_to_the_first() -> None:
    device = Recorder(base=0x30)
    bus = ports(Mapping(0, 2, device))
    assert bus.read(0xFFFF, 2) == 0x30FF
    bus.write(0xFFFF, 4, 0x04030201)
    assert device.accesses == [("read", 0, 1), ("write", 0, 1, 2), ("write", 1, 1, 3)]
    assert bus.unclaimed_writes == 2


@pytest.mark.parametrize(("first", "count"), [(0x100, 0), (0x100, -1), (-1, 2), (0xFFFF, 2), (0x10000, 1)])
def test_attach_mapping_outside_of_the_address_space_raises(first: int, count: int) -> None:
    with pytest.raises(ValueError, match="is not in the address space"):
        ports(Mapping(first, count, Recorder()))


@pytest.mark.parametrize(("first", "count"), [(0x3F8, 8), (0x3F0, 9), (0x3FF, 1), (0x3F9, 2), (0x300, 0x200)])
def test_attach_overlapping_mapping_raises_and_changes_nothing(first: int, count: int) -> None:
    mapping = Mapping(0x3F8, 8, Recorder())
    bus = ports(mapping)
    with pytest.raises(ValueError, match="overlaps the one at 0x3f8"):
        bus.attach(Mapping(first, count, Recorder()))
    assert bus.find(0x3F8) is mapping
    assert bus.find(0x300) is None


def test_attach_adjoining_and_last_mappings_is_fine() -> None:
    bus = ports(Mapping(0x3F8, 8, Recorder()))
    bus.attach(Mapping(0x3F0, 8, Recorder()))
    bus.attach(Mapping(0x400, 8, Recorder()))
    bus.attach(Mapping(0xFFFF, 1, Recorder()))
    assert bus.find(0xFFFF) is not None
