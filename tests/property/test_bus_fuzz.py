"""The bus against its definition: each byte of an access belongs to whoever claims its address."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.remote.bus.routing import Bus, Mapping

ADDRESS_BITS = 6  # small, so that accesses hit mappings, straddle them and wrap
SPACE = 1 << ADDRESS_BITS


@dataclass(eq=False)
class Memory:
    """A device of bytes, which takes some sizes whole."""

    natural_sizes: frozenset[int]
    cells: dict[int, int] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)

    def read(self, offset: int, size: int) -> int:
        self.sizes.add(size)
        return sum(self.cells.get(offset + n, 0) << 8 * n for n in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        self.sizes.add(size)
        for n in range(size):
            self.cells[offset + n] = value >> 8 * n & 0xFF


@st.composite
def buses(draw: st.DrawFn) -> tuple[Bus, list[Mapping]]:
    """A bus with mappings that do not overlap, and the mappings."""
    bus = Bus(ADDRESS_BITS)
    mappings: list[Mapping] = []
    for _ in range(draw(st.integers(0, 6))):
        device = Memory(draw(st.sampled_from([frozenset(), frozenset({2}), frozenset({2, 4, 8})])))
        first, count = draw(st.integers(-1, SPACE)), draw(st.integers(-1, 12))
        mapping = Mapping(first, count, device, draw(st.integers(0, 100)))
        fits = first >= 0 and 1 <= count <= SPACE - first
        free = all(not (m.first < first + count and first < m.first + m.count) for m in mappings)
        try:
            bus.attach(mapping)
        except ValueError:
            assert not (fits and free)
            continue
        assert fits
        assert free
        mappings.append(mapping)
    return bus, mappings


ACCESSES = st.lists(
    st.tuples(
        st.integers(0, SPACE - 1),
        st.sampled_from([1, 2, 3, 4, 8]),
        st.one_of(st.none(), st.integers(0, 2**64 - 1)),
    ),
    max_size=30,
)


@given(buses(), ACCESSES)
def test_bus_is_the_sum_of_its_bytes(
    built: tuple[Bus, list[Mapping]], accesses: list[tuple[int, int, int | None]]
) -> None:
    bus, mappings = built
    # Where an address leads: to one cell of one device.
    home = {(m.first + n): (m.device, m.offset + n) for m in mappings for n in range(m.count)}
    cells: dict[tuple[int, int], int] = {}
    unclaimed = [0, 0]
    for address, size, value in accesses:
        for_each = [home.get((address + n) % SPACE) for n in range(size)]
        if value is None:
            expected = 0
            for n, place in enumerate(for_each):
                unclaimed[0] += place is None
                byte = 0xFF if place is None else cells.get((id(place[0]), place[1]), 0)
                expected |= byte << 8 * n
            assert bus.read(address, size) == expected
        else:
            bus.write(address, size, value & (1 << 8 * size) - 1)
            for n, place in enumerate(for_each):
                unclaimed[1] += place is None
                if place is not None:
                    cells[id(place[0]), place[1]] = value >> 8 * n & 0xFF
    assert [bus.unclaimed_reads, bus.unclaimed_writes] == unclaimed
    for mapping in mappings:
        assert isinstance(mapping.device, Memory)
        assert mapping.device.sizes <= {1, *mapping.device.natural_sizes}
        assert mapping.device.cells == {
            offset: byte for (device, offset), byte in cells.items() if device == id(mapping.device)
        }
