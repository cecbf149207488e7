"""The topology that CPUID tells: every leaf says the same, for any number of CPUs, on Intel and on AMD."""

from __future__ import annotations

import pytest

from kvmbox.kvm.cpuid.leaves import Leaf, find
from kvmbox.kvm.cpuid.topology import id_bits, place

NUMBERS = (1, 2, 3, 4, 5, 8, 31, 32)
HTT = 1 << 28


def leaf(function: int, index: int = 0, **registers: int) -> Leaf:
    words = {"eax": 0, "ebx": 0, "ecx": 0, "edx": 0} | registers
    return Leaf(function, index, False, **words)


def cache(level: int, kind: int, garbage: int = 0xFC00_0000 | 0x1FF << 14) -> Leaf:
    """A cache as a host CPU with 64 cores and 512 threads tells of it."""
    return leaf(4, eax=garbage | level << 5 | kind)


INTEL = (
    leaf(0, eax=0x1F, ebx=0x756E_6547, edx=0x4965_6E69, ecx=0x6C65_746E),
    leaf(1, eax=0xA0671, ebx=0x5510_0800, ecx=0x8000_0000, edx=0x078B_FBFF),
    cache(1, 1),
    Leaf(4, 1, True, 0xFC7F_C142, 0, 0, 0),
    Leaf(4, 2, True, 0xFC7F_C163, 0, 0, 0),
    Leaf(4, 3, True, 0, 0, 0, 0),
    Leaf(0xB, 0, True, 1, 2, 0x100, 77),
    Leaf(0xB, 1, True, 6, 64, 0x201, 77),
    Leaf(0x1F, 0, True, 0, 0, 0, 77),
    leaf(0x8000_0000, eax=0x8000_0008),
    leaf(0x8000_0001, ecx=0x121, edx=0x2010_0800),
    leaf(0x8000_0008, eax=0x3930),
)
AMD = (
    leaf(0, eax=0x10, ebx=0x6874_7541, edx=0x6974_6E65, ecx=0x444D_4163),
    leaf(1, ebx=0x5510_0800, edx=0x178B_FBFF),
    leaf(0x8000_0000, eax=0x8000_0026),
    leaf(0x8000_0001, ecx=0x0040_0123, edx=0x2010_0800),
    leaf(0x8000_0008, eax=0x3030, ecx=0xFFFF_703F),
    Leaf(0x8000_001D, 0, True, 0x7FC121, 0, 0, 0),
    Leaf(0x8000_001D, 3, True, 0x7FC163, 0, 0, 0),
    leaf(0x8000_001E, eax=77, ebx=0x13A, ecx=0x301, edx=5),
    Leaf(0x8000_0026, 0, True, 1, 2, 0x100, 77),
    Leaf(0x8000_0026, 1, True, 7, 128, 0x201, 77),
)


def placed(leaves: tuple[Leaf, ...], function: int, index: int, number: int, cpus: int) -> Leaf:
    found = find(place(leaves, number, cpus), function, index)
    assert found is not None
    return found


@pytest.mark.parametrize(("cpus", "bits"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (31, 5), (32, 5)])
def test_id_bits_is_the_width_of_the_highest_id(cpus: int, bits: int) -> None:
    assert id_bits(cpus) == bits


@pytest.mark.parametrize("cpus", NUMBERS)
@pytest.mark.parametrize("leaves", [INTEL, AMD], ids=["Intel", "AMD"])
def test_leaf_1_has_the_own_id_and_the_number_of_cpus(leaves: tuple[Leaf, ...], cpus: int) -> None:
    for number in range(cpus):
        found = placed(leaves, 1, 0, number, cpus)
        assert (found.ebx >> 24, found.ebx >> 16 & 0xFF, found.ebx & 0xFFFF) == (number, cpus, 0x0800)
        assert bool(found.edx & HTT) == (cpus > 1)
        assert found.edx | HTT == leaves[1].edx | HTT
        assert found.ecx == leaves[1].ecx


@pytest.mark.parametrize("cpus", NUMBERS)
def test_leaf_4_shares_only_the_last_cache_and_counts_the_cores(cpus: int) -> None:
    ids = 1 << id_bits(cpus)
    for index, (level, sharing) in enumerate([(1, 1), (2, 1), (3, ids)]):
        found = placed(INTEL, 4, index, cpus - 1, cpus)
        assert found.eax >> 5 & 7 == level
        assert (found.eax >> 14 & 0xFFF) + 1 == sharing
        assert (found.eax >> 26) + 1 == ids
    assert placed(INTEL, 4, 3, 0, cpus).eax == 0


@pytest.mark.parametrize("cpus", NUMBERS)
@pytest.mark.parametrize("function", [0xB, 0x1F])
def test_levels_have_shifts_that_part_threads_cores_and_packages(function: int, cpus: int) -> None:
    number = cpus - 1
    threads, cores, end = (placed(INTEL, function, index, number, cpus) for index in range(3))
    assert (threads.eax, threads.ebx, threads.ecx) == (0, 1, 0x100)
    assert (cores.eax, cores.ebx, cores.ecx) == (id_bits(cpus), cpus, 0x201)
    assert number >> cores.eax == 0  # all CPUs are of package 0
    assert (end.eax, end.ebx, end.ecx) == (0, 0, 2)
    assert {threads.edx, cores.edx, end.edx} == {number}
    assert all(one.indexed for one in (threads, cores, end))


def test_leaf_that_is_above_the_highest_one_is_not_added() -> None:
    old = (leaf(0, eax=0xA), leaf(1))
    assert [one.function for one in place(old, 0, 2)] == [0, 1]


def test_amd_says_legacy_multi_core_exactly_where_there_are_several() -> None:
    assert placed(AMD, 0x8000_0001, 0, 0, 1).ecx == 0x0040_0121
    assert placed(AMD, 0x8000_0001, 0, 1, 2).ecx == 0x0040_0123
    assert placed(INTEL, 0x8000_0001, 0, 1, 2).ecx == 0x121  # the bit is AMD's


@pytest.mark.parametrize("cpus", NUMBERS)
def test_amd_sizes_tell_cores_and_width_of_ids_and_keep_the_rest(cpus: int) -> None:
    found = placed(AMD, 0x8000_0008, 0, 0, cpus)
    assert (found.ecx & 0xFF, found.ecx >> 12 & 0xF) == (cpus - 1, id_bits(cpus))
    assert found.ecx & ~0xF0FF == AMD[4].ecx & ~0xF0FF
    assert found.eax == AMD[4].eax
    assert placed(INTEL, 0x8000_0008, 0, 0, cpus) == INTEL[-1]


@pytest.mark.parametrize("number", range(4))
def test_amd_extended_ids_are_those_of_a_core_with_one_thread_in_one_node(number: int) -> None:
    found = placed(AMD, 0x8000_001E, 0, number, 4)
    assert (found.eax, found.ebx, found.ecx, found.edx) == (number, number, 0, 0)


def test_amd_caches_are_shared_as_intels_and_have_no_cores_in_them() -> None:
    first, last = (placed(AMD, 0x8000_001D, index, 0, 4) for index in (0, 3))
    assert (first.eax >> 14 & 0xFFF, first.eax >> 26) == (0, 0)
    assert (last.eax >> 14 & 0xFFF, last.eax >> 26) == (3, 0)


def test_amd_second_topology_leaf_is_empty_so_that_the_first_one_counts() -> None:
    levels = [one for one in place(AMD, 3, 4) if one.function == 0x8000_0026]
    assert levels == [Leaf(0x8000_0026, 0, True, 0, 0, 0, 3)]


def test_amd_without_topology_extensions_has_none_of_their_leaves() -> None:
    hidden = tuple(
        one.with_registers({"ecx": one.ecx & ~(1 << 22)}) if one.function == 0x8000_0001 else one
        for one in AMD
    )
    assert not {0x8000_001D, 0x8000_001E} & {one.function for one in place(hidden, 0, 4)}


def test_placing_twice_is_placing_once() -> None:
    for leaves in (INTEL, AMD):
        once = place(leaves, 2, 4)
        assert place(once, 2, 4) == once
