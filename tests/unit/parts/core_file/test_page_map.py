"""All that page tables map: each kind of paging, and tables that a hostile guest has made."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvmbox.explain.paging import CR0_PE, CR0_PG, CR4_LA57, CR4_PAE, CR4_PSE, EFER_NXE, NO_EXECUTE, WRITABLE
from kvmbox.explain.stopped_cpu import Cpu
from kvmbox.parts.core_file.page_map import MOST_ENTRIES, MOST_RANGES, MOST_TABLES, Backing, page_map
from tests.support.stopped_cpu import Memory, long_mode, protected_mode

FOUR = (39, 30, 21, 12)
RAM = (Backing(0, 0x400_0000, 0x1000),)
PAGE = 4096


def empty_long_mode(memory: Memory, **registers: int) -> Cpu:
    """A CPU in 64-bit mode whose tables map nothing."""
    cpu = long_mode(memory, **registers)
    cpu.sregs.cr3 = memory.table()
    return cpu


def found(cpu: Cpu, backings: tuple[Backing, ...] = RAM) -> list[tuple[int, int, int]]:
    """Linear address, physical address and size of each range."""
    return [(one.linear, one.physical, one.size) for one in page_map(cpu, backings).ranges]


def test_without_paging_the_ranges_are_physical_memory() -> None:
    backings = (Backing(0, 0x10_0000, 0x1000), Backing(1 << 32, 0x2000, 0x10_1000))
    mapped = page_map(protected_mode(Memory()), backings)
    assert [(one.linear, one.place, one.size) for one in mapped.ranges] == [
        *((0, 0x1000, 0x10_0000), (1 << 32, 0x10_1000, 0x2000)),
    ]
    assert mapped.complete


def test_tables_outside_of_ram_give_physical_memory() -> None:
    cpu = long_mode(Memory())
    cpu.sregs.cr3 = 0x7000_0000
    assert found(cpu) == [(0, 0, 0x400_0000)]


def test_pages_in_a_row_are_one_range() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    for page in (0, 1, 2, 4):
        memory.map(cpu.sregs.cr3, 0x10_0000 + page * PAGE, 0x5000 + page * PAGE, shifts=FOUR)
    assert found(cpu) == [(0x10_0000, 0x5000, 3 * PAGE), (0x10_4000, 0x9000, PAGE)]


def test_pages_whose_physical_addresses_do_not_follow_are_two_ranges() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    memory.map(cpu.sregs.cr3, 0x10_0000, 0x5000, shifts=FOUR)
    memory.map(cpu.sregs.cr3, 0x10_1000, 0x8000, shifts=FOUR)
    assert found(cpu) == [(0x10_0000, 0x5000, PAGE), (0x10_1000, 0x8000, PAGE)]


def test_range_across_two_tables_is_one_in_the_order_of_addresses() -> None:
    memory = Memory()
    # The code is in the second half, whose table is read first.
    cpu = empty_long_mode(memory, rip=0x80_0000_0000)
    memory.map(cpu.sregs.cr3, 0x7F_FFFF_F000, 0x5000, shifts=FOUR)
    memory.map(cpu.sregs.cr3, 0x80_0000_0000, 0x6000, shifts=FOUR)
    assert found(cpu) == [(0x7F_FFFF_F000, 0x5000, 2 * PAGE)]


def test_higher_half_has_canonical_addresses() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    memory.map(cpu.sregs.cr3, 0xFFFF_FFFF_8020_0000, 0x20_0000, shifts=FOUR[:3])
    assert found(cpu) == [(0xFFFF_FFFF_8020_0000, 0x20_0000, 0x20_0000)]


def test_five_levels_have_canonical_addresses() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    cpu.sregs.cr4 |= CR4_LA57
    memory.map(cpu.sregs.cr3, 0xFF12_0000_0000_1000, 0x7000, shifts=(48, *FOUR))
    memory.map(cpu.sregs.cr3, 0x0012_0000_0000_1000, 0x8000, shifts=(48, *FOUR))
    assert found(cpu) == [
        *((0x0012_0000_0000_1000, 0x8000, PAGE), (0xFF12_0000_0000_1000, 0x7000, PAGE)),
    ]


def test_page_beyond_ram_is_cut() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    memory.map(cpu.sregs.cr3, 0x4000_0000, 0, shifts=(39, 30))
    memory.map(cpu.sregs.cr3, 0x1000, 0xFEE0_0000, shifts=FOUR)
    assert found(cpu) == [(0x4000_0000, 0, 0x400_0000)]


def test_rom_behind_ram_is_a_range_of_its_own() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    memory.map(cpu.sregs.cr3, 0x8000, 0x1000, shifts=FOUR)
    memory.map(cpu.sregs.cr3, 0x9000, 0x2000, shifts=FOUR)
    mapped = page_map(cpu, (Backing(0x2000, 0x1000, 0x9000), Backing(0, 0x2000, 0x1000)))
    assert [(one.linear, one.place) for one in mapped.ranges] == [(0x8000, 0x2000), (0x9000, 0x9000)]


def test_rights_of_all_levels_count() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    cpu.sregs.efer |= EFER_NXE
    memory.map(cpu.sregs.cr3, 0x1000, 0x1000, 5, shifts=FOUR)
    memory.map(cpu.sregs.cr3, 0x2000, 0x2000, 3, shifts=FOUR)
    memory.write_number(cpu.sregs.cr3, int.from_bytes(memory.read(cpu.sregs.cr3, 8), "little") | NO_EXECUTE)
    first, second = page_map(cpu, RAM).ranges
    assert (first.rights & WRITABLE, second.rights & WRITABLE) == (0, WRITABLE)
    assert first.rights & second.rights & NO_EXECUTE


def test_entry_with_bit_63_without_nxe_maps_nothing() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    memory.map(cpu.sregs.cr3, 0x1000, 0x1000, shifts=FOUR)
    memory.map(cpu.sregs.cr3, 0x2000, 0x2000 | NO_EXECUTE, shifts=FOUR)
    assert found(cpu) == [(0x1000, 0x1000, PAGE)]


def test_pae_has_four_entries_at_the_top() -> None:
    memory = Memory()
    cpu = protected_mode(memory)
    cpu.sregs.cr0, cpu.sregs.cr4 = CR0_PE | CR0_PG, CR4_PAE
    cpu.sregs.cr3 = memory.table()
    memory.map(cpu.sregs.cr3, 0xC000_0000, 0x20_0000, shifts=(30, 21))
    memory.write_number(cpu.sregs.cr3 + 4 * 8, 0x5001)  # the fifth
    assert found(cpu) == [(0xC000_0000, 0x20_0000, 0x20_0000)]


def test_two_levels_and_a_large_page() -> None:
    memory = Memory()
    cpu = protected_mode(memory)
    cpu.sregs.cr0, cpu.sregs.cr4 = CR0_PE | CR0_PG, CR4_PSE
    root, table = memory.table(), memory.table()
    cpu.sregs.cr3 = root
    memory.write_number(root + 4 * 768, 0x40_0083, 4)
    memory.write_number(root, table | 3, 4)
    memory.write_number(table + 4 * 7, 0x9003, 4)
    assert found(cpu) == [(0x7000, 0x9000, PAGE), (0xC000_0000, 0x40_0000, 0x40_0000)]


def test_tables_that_map_themselves_are_ranges_too() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    root = cpu.sregs.cr3
    memory.map(root, 0xFFFF_FFFF_8000_0000, 0, shifts=FOUR[:3])
    memory.write_number(root + 8 * 510, root | 3)
    mapped = page_map(cpu, RAM)
    assert mapped.complete
    # The top table itself, at the address that has 510 at each level.
    assert (0xFFFF_FF7F_BFDF_E000, root) in [where[:2] for where in found(cpu)]
    assert (0xFFFF_FFFF_8000_0000, 0, 0x20_0000) in found(cpu)


class Counted:
    """Physical memory in which every page is the same table; it counts how often one is read."""

    def __init__(self, entry: int) -> None:
        self.page = entry.to_bytes(8, "little") * 512
        self.reads = 0

    def read(self, _address: int, size: int) -> bytes:
        self.reads += 1
        return self.page[:size]


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        (0x5003, MOST_RANGES),  # the table is its own next level, and its own page
        (0x6000_0003, 0),  # the same, and the page is not RAM
    ],
)
def test_tables_that_are_all_one_table_are_bounded(entry: int, limit: int) -> None:
    cpu = long_mode(Memory())
    hostile = Counted(entry)
    mapped = page_map(Cpu(cpu.regs, cpu.sregs, hostile.read), RAM)
    assert len(mapped.ranges) == (limit or 1)
    assert hostile.reads <= MOST_TABLES
    assert not mapped.complete


def test_entries_are_bounded_where_nothing_is_ram() -> None:
    cpu = long_mode(Memory())
    hostile = Counted(0x6000_0003)
    page_map(Cpu(cpu.regs, cpu.sregs, hostile.read), RAM)
    assert hostile.reads <= MOST_ENTRIES // 512 + 4


def test_tables_with_nothing_in_them_are_bounded() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory)
    tables = [cpu.sregs.cr3, memory.table(), memory.table(), memory.table()]
    for table, following in pairwise(tables):
        for index in range(512):
            memory.write_number(table + 8 * index, following | 3)
    counted = Counted(0)

    def read(address: int, size: int) -> bytes:
        counted.read(address, size)
        return memory.read(address, size)

    assert not page_map(Cpu(cpu.regs, cpu.sregs, read), RAM).complete
    assert counted.reads == MOST_TABLES


def test_code_comes_first_where_tables_map_too_much() -> None:
    memory = Memory()
    cpu = empty_long_mode(memory, rip=0x1_0000_0000_0000 // 2 - PAGE, rsp=0x1000)
    root, leaf = cpu.sregs.cr3, memory.table()
    for index in range(512):
        memory.write_number(leaf + 8 * index, 0x5003)
    middle, high = memory.table(), memory.table()
    for index in range(512):
        memory.write_number(middle + 8 * index, leaf | 3)
        memory.write_number(high + 8 * index, middle | 3)
        memory.write_number(root + 8 * index, high | 3)
    memory.write_number(root + 8 * 255, 0)
    memory.map(root, cpu.regs.rip, 0x8000, shifts=FOUR)
    mapped = page_map(cpu, RAM)
    assert not mapped.complete
    assert (cpu.regs.rip, 0x8000) in [(one.linear, one.physical) for one in mapped.ranges]
