"""The state each kind of entry gets, against the processor's own rules."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, CpuState, GuestImage, Segment, load_image
from kvmbox.boot.boot_area import BootArea
from kvmbox.boot.cpu_state import INITIAL_TSS, NO_LDT, RFLAGS_ALWAYS
from kvmbox.boot.entry_state import descriptor
from tests.support.boot_images import CODE, Piece, elf, multiboot2_header, multiboot_header, pvh_note

MULTIBOOT = elf([Piece(data=multiboot_header() + CODE)])


def start(data: bytes, mode: str = "auto") -> tuple[CpuState, GuestMemory]:
    memory = GuestMemory(2 * layout.MIB)
    options = BootOptions(boot="real") if mode == "real" else BootOptions()
    return load_image(GuestImage("k", data), memory, options).state, memory


def gdt_entry(memory: GuestMemory, selector: int) -> int:
    (value,) = struct.unpack("<Q", memory.read(BootArea().gdt + selector, 8))
    assert isinstance(value, int)
    return value


def test_multiboot_state_is_flat_protected_mode() -> None:
    state, _ = start(MULTIBOOT)

    assert state.cr0 & 0x8000_0001 == 1  # PE, not PG
    assert state.cr0 & 0x30 == 0x30  # ET, and NE for VMX
    assert (state.cr3, state.cr4, state.efer) == (0, 0, 0)
    assert (state.rax, state.rbx, state.rsp) == (0x2BADB002, 0x9000, 0x9000)
    assert state.cs == Segment(0, 0xFFFF_FFFF, 0x08, 11, 1, 0, 1, 1, 0, 1)
    for data in (state.data, state.ss):
        assert data == Segment(0, 0xFFFF_FFFF, 0x10, 3, 1, 0, 1, 1, 0, 1)
    assert (state.gdt.base, state.gdt.limit) == (0x1000, 7 * 8 - 1)
    assert (state.idt.base, state.idt.limit) == (0, 0)


def test_elf32_state_is_multiboots() -> None:
    assert start(elf())[0] == start(MULTIBOOT)[0]


@pytest.mark.parametrize(
    ("header", "places"),
    [
        (multiboot_header(), []),
        (multiboot2_header(), []),
        (b"", [pvh_note(0x100000)]),
        (multiboot_header(), [Piece(virtual=0x8000)]),
        (multiboot2_header(), [Piece(virtual=0x8000)]),
    ],
    ids=["multiboot", "multiboot2", "pvh", "multiboot, moved", "multiboot2, moved"],
)
def test_stack_of_a_32_bit_entry_is_in_ram_and_free(header: bytes, places: list[Piece]) -> None:
    state, memory = start(elf([Piece(data=header + bytes(64) + CODE, virtual=0x100000), *places], bits=64))

    top = state.rsp
    assert top % 16 == 0
    assert state.gdt.base < top <= state.rbx
    assert memory.read(top - 4096, 4096) == bytes(4096)


def test_elf64_state_is_long_mode() -> None:
    state, _ = start(elf(bits=64))

    assert state.cr0 & 0x8000_0031 == 0x8000_0031  # PG, NE, ET, PE
    assert state.cr4 == 1 << 5 | 1 << 9 | 1 << 10  # PAE, OSFXSR, OSXMMEXCPT
    assert state.efer == 1 << 8 | 1 << 10  # LME, LMA
    assert state.cr3 == 0x2000
    assert state.cs == Segment(0, 0xFFFF_FFFF, 0x18, 11, 1, 0, 0, 1, 1, 1)
    for data in (state.data, state.ss):
        assert data == Segment(0, 0xFFFF_FFFF, 0x20, 3, 1, 0, 1, 1, 0, 1)
    assert (state.rax, state.rbx, state.rdi, state.rsp) == (0x2BADB002, 0x9000, 0x9000, 0x9000)
    assert state.rsp % 16 == 0


def test_elf64_page_tables_map_4_gib_to_themselves_for_user_mode() -> None:
    state, memory = start(elf(bits=64))

    def entry(table: int, index: int) -> int:
        return int.from_bytes(memory.read((table & ~0xFFF) + 8 * index, 8), "little")

    def translate(address: int) -> int:
        walk = [entry(state.cr3, address >> 39)]
        walk.append(entry(walk[-1], address >> 30 & 511))
        walk.append(entry(walk[-1], address >> 21 & 511))
        assert all(e & 7 == 7 for e in walk), hex(address)  # present, writable, user
        assert [e >> 7 & 1 for e in walk] == [0, 0, 1]
        assert walk[-1] & 0x1F_FFFF == 0x87  # nothing but present, writable, user and 2 MiB
        return walk[-1] & ~0x1F_FFFF | address & 0x1F_FFFF

    for address in range(0, 4 * layout.GIB, 2 * layout.MIB):
        assert translate(address + 0x12345) == address + 0x12345
    assert entry(state.cr3, 1) == 0
    assert entry(BootArea().pdpt, 4) == 0


@pytest.mark.parametrize("data", [MULTIBOOT, elf(), elf(bits=64)])
def test_gdt_descriptors_are_those_of_the_loaded_segments(data: bytes) -> None:
    state, memory = start(data)

    for segment in (state.cs, state.data, state.ss):
        assert gdt_entry(memory, segment.selector) == descriptor(segment)
    assert gdt_entry(memory, 0) == 0


def test_gdt_has_the_well_known_flat_descriptors() -> None:
    _, memory = start(elf())

    assert [gdt_entry(memory, selector) for selector in range(0, 0x38, 8)] == [
        0,
        0x00CF9B000000FFFF,
        0x00CF93000000FFFF,
        0x00AF9B000000FFFF,
        0x00CF93000000FFFF,
        0x00CFF3000000FFFF,
        0x00AFFB000000FFFF,
    ]


def test_descriptor_splits_base_and_limit() -> None:
    segment = Segment(base=0xFE345678, limit=0x9ABCD, type=2, present=1, s=1, avl=1)

    assert descriptor(segment) == 0xFE_1_9_92_345678_ABCD


@pytest.mark.parametrize(
    ("data", "mode"), [(MULTIBOOT, "auto"), (elf(), "auto"), (elf(bits=64), "auto"), (b"\xf4", "real")]
)
def test_state_satisfies_vmx_entry_checks_on_segments(data: bytes, mode: str) -> None:
    # Intel SDM vol. 3, 27.3.1.2 (guest segment registers), as far as it does not depend on controls.
    state, _ = start(data, mode)

    assert INITIAL_TSS.type == 11
    assert (INITIAL_TSS.s, INITIAL_TSS.present, INITIAL_TSS.selector & 4) == (0, 1, 0)
    for segment in (state.cs, state.ss, state.data, INITIAL_TSS):
        assert segment.type & 1  # accessed, or busy
        if segment.limit & 0xFFF != 0xFFF:
            assert segment.g == 0
        if segment.limit >> 20:
            assert segment.g == 1
    assert not (state.cs.l and state.cs.db)
    assert state.cs.dpl == state.ss.dpl == state.cs.selector & 3 == 0
    assert RFLAGS_ALWAYS & 0x202 == 2  # bit 1 is set, IF is clear
    assert bool(state.efer & 1 << 10) == bool(state.cr0 >> 31 and state.efer & 1 << 8)


@pytest.mark.parametrize(
    ("data", "mode", "named"),
    [
        (MULTIBOOT, "auto", {"rax", "rbx", "rsp"}),
        (elf(), "auto", {"rax", "rbx", "rsp"}),
        (elf(bits=64), "auto", {"rax", "rbx", "rdi", "rsp"}),
        (b"\xf4", "real", {"rdx", "rsp"}),
    ],
)
def test_state_registers_that_are_not_named_are_zero(data: bytes, mode: str, named: set[str]) -> None:
    state, _ = start(data, mode)
    registers = ["rax", "rbx", "rdx", "rsi", "rdi", "rsp"]

    assert {name for name in registers if getattr(state, name)} == named


@pytest.mark.parametrize(
    ("data", "mode", "cr0"),
    [
        (MULTIBOOT, "auto", 0x33),  # PE MP ET NE
        (elf(), "auto", 0x33),
        (elf(bits=64), "auto", 0x8000_0033),
        (b"\xf4", "real", 0x10),
    ],
)
def test_state_cr0_is_as_documented(data: bytes, mode: str, cr0: int) -> None:
    state, _ = start(data, mode)

    assert state.cr0 == cr0


def test_there_is_no_ldt() -> None:
    assert Segment(type=2) == NO_LDT
