"""Page walks: each kind of paging, and each entry that may stop a walk."""

from __future__ import annotations

import pytest

from kvmbox.explain.paging import (
    CR0_PE,
    CR0_PG,
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    EFER_LMA,
    EFER_NXE,
    NO_EXECUTE,
    USER,
    WRITABLE,
    is_canonical,
    walk,
)
from tests.support.stopped_cpu import Memory

PAGING = CR0_PE | CR0_PG
FOUR = (39, 30, 21, 12)


def test_without_paging_linear_is_physical() -> None:
    found = walk(0x1_2345_6789, CR0_PE, 0, 0, 0, Memory().read)
    assert (found.physical, found.stopped, found.levels) == (0x2345_6789, "", ())


@pytest.mark.parametrize(
    ("shifts", "linear", "physical", "expected"),
    [
        (FOUR, 0xFFFF_8000_0012_3456, 0x5000, 0x5456),
        ((39, 30, 21), 0x7F12_3456_789A, 0x20_0000, 0x20_0000 | 0x3456_789A & 0x1F_FFFF),
        ((39, 30), 0x7F12_3456_789A, 0x4000_0000, 0x4000_0000 | 0x3456_789A & 0x3FFF_FFFF),
    ],
)
def test_four_levels(shifts: tuple[int, ...], linear: int, physical: int, expected: int) -> None:
    memory = Memory()
    root = memory.table()
    memory.map(root, linear, physical, shifts=shifts)
    found = walk(linear, PAGING, root, CR4_PAE, EFER_LMA, memory.read)
    assert found.physical == expected
    assert [level.name for level in found.levels] == ["PML4E", "PDPTE", "PDE", "PTE"][: len(shifts)]
    assert found.in_words == "writable, user"


def test_five_levels() -> None:
    memory = Memory()
    root = memory.table()
    memory.map(root, 0x007F_0000_0000_1000, 0x7000, shifts=(48, *FOUR))
    found = walk(0x007F_0000_0000_1234, PAGING, root, CR4_PAE | CR4_LA57, EFER_LMA, memory.read)
    assert found.physical == 0x7234
    assert found.levels[0].name == "PML5E"
    assert found.levels[0].index == 0x7F


@pytest.mark.parametrize("level", range(4))
def test_walk_ends_at_the_entry_that_is_not_present(level: int) -> None:
    memory = Memory()
    root = memory.table()
    memory.map(root, 0x1000, 0x5000, shifts=FOUR)
    entry = walk(0x1000, PAGING, root, CR4_PAE, EFER_LMA, memory.read).levels[level]
    memory.write_number(entry.address, 0xABC0)
    found = walk(0x1000, PAGING, root, CR4_PAE, EFER_LMA, memory.read)
    assert found.physical is None
    assert found.stopped == f"{entry.name} is not present"
    assert len(found.levels) == level + 1
    assert str(found.levels[-1]) == f"{entry.name}[{entry.index}] at {entry.address:#x} = 0xabc0"


def test_table_outside_of_memory_ends_the_walk() -> None:
    found = walk(0x1000, PAGING, 0xDEAD_B000, CR4_PAE, EFER_LMA, Memory().read)
    assert found.stopped == "PML4E: the table is not in RAM"
    assert "not in RAM" in str(found.levels[0])


def test_rights_are_those_of_all_levels_together() -> None:
    memory = Memory()
    root = memory.table()
    memory.map(root, 0x1000, 0x5000, 1 | USER | NO_EXECUTE, shifts=FOUR)
    top = walk(0x1000, PAGING, root, CR4_PAE, EFER_LMA | EFER_NXE, memory.read).levels[0]
    assert top.value is not None
    memory.write_number(top.address, top.value & ~USER)
    found = walk(0x1000, PAGING, root, CR4_PAE, EFER_LMA | EFER_NXE, memory.read)
    assert not found.rights & (WRITABLE | USER)
    assert found.rights & NO_EXECUTE
    assert found.in_words == "read-only, supervisor, not executable"


def test_bit_63_without_nxe_stops_the_walk() -> None:
    memory = Memory()
    root = memory.table()
    memory.map(root, 0x1000, 0x5000, 7 | NO_EXECUTE, shifts=FOUR)
    found = walk(0x1000, PAGING, root, CR4_PAE, EFER_LMA, memory.read)
    assert found.stopped == "PTE has bit 63, which EFER.NXE does not allow"


@pytest.mark.parametrize(
    ("address", "la57", "canonical"),
    [
        (0x7FFF_FFFF_FFFF, False, True),
        (0x8000_0000_0000, False, False),
        (0xFFFF_8000_0000_0000, False, True),
        (0xFFFF_7FFF_FFFF_FFFF, False, False),
        (0x8000_0000_0000, True, True),
        (0x0100_0000_0000_0000, True, False),
        (0xFF00_0000_0000_0000, True, True),
    ],
)
def test_canonical(address: int, la57: bool, canonical: bool) -> None:
    cr4 = CR4_PAE | (CR4_LA57 if la57 else 0)
    assert is_canonical(address, cr4) == canonical
    stopped = walk(address, PAGING, 0, cr4, EFER_LMA, Memory().read).stopped
    assert (stopped == "not a canonical address") == (not canonical)


def test_two_levels_with_small_and_large_pages() -> None:
    memory = Memory()
    memory.write_number(0x2000 + 4 * 1, 0x3007, 4)
    memory.write_number(0x3000 + 4 * 2, 0x9005, 4)
    small = walk(0x0040_2ABC, PAGING, 0x2000, 0, 0, memory.read)
    assert (small.physical, small.in_words) == (0x9ABC, "read-only, user")
    memory.write_number(0x2000 + 4 * 3, 0x0080_0087 | 1 << 13, 4)  # PSE-36: bit 32 of the address
    large = walk(0x00C1_2345, PAGING, 0x2000, CR4_PSE, 0, memory.read)
    assert large.physical == 0x1_0081_2345
    without = walk(0x00C1_2345, PAGING, 0x2000, 0, 0, memory.read)
    assert len(without.levels) == 2


def test_pae_has_four_pointers_whose_bits_are_no_rights() -> None:
    memory = Memory()
    memory.write_number(0x2020 + 8 * 3, 0x3001)
    memory.write_number(0x3000, 0x0020_0087)
    found = walk(0xC000_1234, PAGING, 0x2020, CR4_PAE, 0, memory.read)
    assert found.physical == 0x0020_1234
    assert found.in_words == "writable, user"
    assert [level.name for level in found.levels] == ["PDPTE", "PDE"]
