"""ELF files: what is loaded where, where they start, and every reason to refuse one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image, read_image
from tests.support.boot_images import (
    CODE,
    ET_CORE,
    ET_DYN,
    ET_REL,
    PT_DYNAMIC,
    PT_INTERP,
    PT_NOTE,
    Piece,
    elf,
    elf_note,
    multiboot_header,
)

SIZE = 8 * layout.MIB


def load(data: bytes, memory: GuestMemory | None = None) -> tuple[BootPlan, GuestMemory]:
    memory = memory or GuestMemory(SIZE)
    return load_image(GuestImage("/images/guest.elf", data), memory, BootOptions()), memory


def refusal(data: bytes, memory_size: int = SIZE) -> ImageError:
    memory = GuestMemory(memory_size)
    with pytest.raises(ImageError) as caught:
        load(data, memory)
    assert "\n" not in str(caught.value)
    assert "/images/guest.elf" in str(caught.value)
    assert memory.read(0, 0x200000) == bytes(0x200000), "a refused image must leave memory alone"
    return caught.value


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_with_own_entry_is_loaded_at_p_paddr(bits: int) -> None:
    result, memory = load(elf([Piece(virtual=0x200000, physical=0x300000)], bits=bits, entry=0x200004))

    assert memory.read(0x300000, len(CODE)) == CODE
    assert memory.read(0x200000, len(CODE)) == bytes(len(CODE))
    assert result.format == f"elf{bits}"
    assert result.entry == result.state.rip == 0x300004
    assert [(s.address, s.end) for s in result.segments] == [(0x300000, 0x300000 + len(CODE))]


def test_elf_bss_over_old_contents_is_zeroed() -> None:
    memory = GuestMemory(SIZE)
    memory.fill(0x100000, 0x300000, 0xAA)

    load(elf([Piece(memory_size=0x250001)]), memory)

    assert memory.read(0x100000, len(CODE)) == CODE
    assert memory.read(0x100000 + len(CODE), 0x250001 - len(CODE)) == bytes(0x250001 - len(CODE))
    assert memory.read(0x350001, 1) == b"\xaa"


def test_elf_segment_without_file_bytes_may_point_anywhere_in_the_file() -> None:
    bss = Piece(data=b"", virtual=0x200000, memory_size=0x1000, offset=0x7FFF_0000)

    result, _ = load(elf([Piece(), bss]))

    assert [s.memory_size for s in result.segments] == [len(CODE), 0x1000]


def test_elf_empty_segment_at_address_zero_is_ignored() -> None:
    result, _ = load(elf([Piece(), Piece(data=b"", virtual=0)]))

    assert [s.index for s in result.segments] == [0]


@pytest.mark.parametrize(
    ("entry", "physical_entry"),
    [
        (0xC0100000, 0x100000),
        (0xC010001F, 0x10001F),
        (0x100008, 0x100008),  # not in the virtual range: taken as physical
        (0xC0200010, 0x400010),
    ],
)
def test_elf_higher_half_entry_becomes_physical(entry: int, physical_entry: int) -> None:
    pieces = [Piece(virtual=0xC0100000, physical=0x100000), Piece(virtual=0xC0200000, physical=0x400000)]

    result, _ = load(elf(pieces, entry=entry))

    assert result.entry == physical_entry


def test_elf_entry_in_a_virtual_and_another_physical_range_is_virtual() -> None:
    pieces = [Piece(virtual=0x400000, physical=0x100000), Piece(virtual=0x100000, physical=0x200000)]

    assert load(elf(pieces, entry=0x100004))[0].entry == 0x200004


def test_elf64_higher_half_entry_becomes_physical() -> None:
    base = 0xFFFF_FFFF_8010_0000

    result, _ = load(elf([Piece(virtual=base, physical=0x100000)], bits=64, entry=base + 1))

    assert result.state.rip == 0x100001


@pytest.mark.parametrize("entry", [0, 0xFFFFF, 0x100000 + 32, 0xFFFFFFFF])
def test_elf_entry_in_no_segment_is_refused(entry: int) -> None:
    assert f"entry {entry:#x} lies in no loaded segment" in str(refusal(elf(entry=entry)))


@pytest.mark.parametrize("bits", [32, 64])
def test_elf_cut_at_every_byte_is_refused(bits: int) -> None:
    whole = elf([Piece(), Piece(data=b"data" * 4, virtual=0x200000, memory_size=0x100)], bits=bits)
    memory = GuestMemory(SIZE)
    load(whole, memory)

    for size in range(len(whole)):
        with pytest.raises(ImageError):
            load(whole[:size], memory)


def test_elf_with_multiboot_header_cut_at_every_byte_is_refused() -> None:
    whole = elf([Piece(data=multiboot_header() + CODE)])
    memory = GuestMemory(SIZE)
    load(whole, memory)

    for size in range(len(whole)):
        with pytest.raises(ImageError):
            load(whole[:size], memory)


def test_elf_cut_within_its_section_headers_is_refused() -> None:
    end = len(elf())
    data = elf(section_offset=end, section_count=3)

    assert "section header table ends" in str(refusal(data + bytes(3 * 40 - 1)))
    load(data + bytes(3 * 40))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (elf(elf_class=3), "unknown class 3"),
        (elf(order=2), "big-endian"),
        (elf(order=0), "unknown byte order 0"),
        (elf(version=9), "unknown version 9"),
        (elf(machine=40), "machine EM_ARM"),
        (elf(machine=0xF00D), "machine 61453"),
        (elf(machine=62), "x32"),
        (elf(bits=64, machine=3), "ELF64 file for machine EM_386"),
        (elf(bits=64, machine=183), "EM_AARCH64"),
    ],
)
def test_elf_for_another_machine_names_found_and_accepted(data: bytes, found: str) -> None:
    error = refusal(data)

    assert found in str(error)
    assert "accepted are" in str(error)
    assert error.hint
    assert error.exit_status == 4


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (elf(file_type=ET_DYN), "static-pie"),
        (elf([Piece(), Piece(type=PT_DYNAMIC)], file_type=ET_DYN), "static-pie"),
        (elf([Piece(), Piece(type=PT_INTERP)], file_type=ET_DYN), "dynamically linked"),
        (elf([Piece(), Piece(type=PT_INTERP)]), "dynamically linked"),
        (elf(file_type=ET_REL), "object file"),
        (elf([], file_type=ET_REL), "object file"),
        (elf(file_type=ET_CORE), "core dump"),
        (elf(file_type=0), "unknown type ET_NONE"),
        (elf(file_type=0xBEEF), "unknown type 48879"),
        (elf([]), "without a loadable segment"),
        (elf([Piece(type=PT_NOTE)]), "without a loadable segment"),
        (elf([Piece(data=b"")]), "without a loadable segment"),
        (elf([Piece(memory_size=31)]), "32 bytes in the file and 31 in memory"),
        (elf([Piece(file_size=33)]), "segment 0 ends at byte"),
        (elf([Piece(offset=0xFFFF_FFFF)]), "segment 0 ends at byte"),
        (elf(count=300), "absurd 300 program headers"),
        (elf(count=0xFFFF), "absurd 65535 program headers"),
        (elf(count=4), "the program header table ends at byte"),
        (elf(entry_size=31), "program headers of 31 bytes"),
        (elf(entry_size=0), "program headers of 0 bytes"),
    ],
)
def test_elf_that_is_no_whole_static_executable_is_refused(data: bytes, found: str) -> None:
    assert found in str(refusal(data))


@pytest.mark.parametrize(
    ("address", "size", "found"),
    [
        (SIZE - 0x10, 0x11, "does not fit into 8 MiB"),
        (SIZE, 1, "does not fit into 8 MiB"),
        (0x100000, 0xFFF0_0000 - 0x4000_0000 + 1, "0xc0000000..0x100000000"),
        (0xD0000000, 0x1000, "0xc0000000..0x100000000"),
    ],
)
def test_elf_segment_out_of_place_is_refused(address: int, size: int, found: str) -> None:
    error = refusal(elf([Piece(data=b"x", virtual=address, memory_size=size)], entry=address))

    assert found in str(error)
    assert "segment 0" in str(error)


@pytest.mark.parametrize("address", [0, layout.BOOT_AREA_START, layout.BOOT_AREA_END, 0xFF000, SIZE - 1])
def test_elf_segment_at_the_edge_of_what_is_free_is_loaded(address: int) -> None:
    _, memory = load(elf([Piece(data=b"x", virtual=address)], entry=address))

    assert memory.read(address, 1) == b"x"


def test_elf_beyond_memory_hints_how_much_is_needed() -> None:
    error = refusal(elf([Piece(memory_size=20 * layout.MIB)]))

    assert error.hint == "give it at least 21 MiB with --memory"


def test_elf64_segment_above_4_gib_hint_counts_without_the_hole() -> None:
    pieces = [Piece(), Piece(virtual=4 * layout.GIB, data=b"x")]

    error = refusal(elf(pieces, bits=64))

    assert error.hint == "give it at least 3073 MiB with --memory"


@pytest.mark.parametrize("size", [1 << 40, (1 << 64) - 0x100000, (1 << 64) - 1])
def test_elf64_absurd_memory_size_is_refused_before_anything_is_written(size: int) -> None:
    error = refusal(elf([Piece(memory_size=size)], bits=64))

    assert "0xc0000000..0x100000000" in str(error)


def test_elf64_segment_at_the_end_of_the_address_space_is_refused() -> None:
    pieces = [Piece(), Piece(virtual=(1 << 64) - 1, data=b"x", memory_size=8)]

    assert "no guest gets more" in str(refusal(elf(pieces, bits=64)).hint)


def test_elf64_entry_above_4_gib_is_refused() -> None:
    entry = 4 * layout.GIB

    error = refusal(elf([Piece(virtual=entry)], bits=64, entry=entry), 3 * layout.GIB + layout.MIB)

    assert "not below 4 GiB" in str(error)


def test_elf64_segment_above_4_gib_is_loaded_where_there_is_memory() -> None:
    pieces = [Piece(), Piece(virtual=4 * layout.GIB, data=b"high")]

    _, memory = load(elf(pieces, bits=64), GuestMemory(3 * layout.GIB + layout.MIB))

    assert memory.read(4 * layout.GIB, 4) == b"high"


@pytest.mark.parametrize("second", [0x100000, 0x10001F, 0xFFFF1])
def test_elf_overlapping_segments_are_refused(second: int) -> None:
    error = refusal(elf([Piece(), Piece(virtual=0x700000, physical=second, data=bytes(16))]))

    assert "segment 0" in str(error)
    assert "segment 1" in str(error)
    assert "overlap" in str(error)


def test_elf_segments_that_touch_are_loaded() -> None:
    _, memory = load(elf([Piece(), Piece(virtual=0x100020), Piece(virtual=0xFFFE0)]))

    assert memory.read(0xFFFE0, 3 * len(CODE)) == 3 * CODE


def test_elf_for_another_machine_is_named_as_that_though_it_has_a_xen_note() -> None:
    note = Piece(data=elf_note(b"Xen\0", 18, bytes(4)), type=PT_NOTE)

    assert "EM_AARCH64" in str(refusal(elf([Piece(), note], bits=64, machine=183)))


def test_elf_of_class_32_with_64_bit_code_is_told_how_to_link() -> None:
    error = refusal(elf(machine=62))

    assert "x32 ELF file (32-bit class, x86-64 machine)" in str(error)
    assert "elf_x86_64" in str(error.hint)


def test_elf_with_other_notes_is_loaded() -> None:
    notes = elf_note(b"GNU\0", 18, b"x") + elf_note(b"Xen\0", 6, b"linux\0")

    plan, memory = load(elf([Piece(), Piece(data=notes + b"\xff" * 11, type=PT_NOTE)]))

    assert (plan.format, plan.state) == ("elf32", load(elf([Piece()]))[0].state)
    assert memory.read(0x100000, len(CODE)) == CODE


def test_elf_reloaded_after_clear_gives_the_same_memory_and_state() -> None:
    data = elf([Piece(memory_size=0x1000)], bits=64)
    first, memory = load(data)
    before = memory.read(0, SIZE)

    memory.write(0x100000, b"\xff" * 0x2000)
    memory.clear()
    second, _ = load(data, memory)

    assert second == first
    assert memory.read(0, SIZE) == before


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_elf_linked_by_cc_agrees_with_pyelftools(tmp_path: Path) -> None:
    from elftools.elf.elffile import ELFFile

    source = tmp_path / "guest.c"
    source.write_text("char bss[5000]; int data = 7; void _start(void) { bss[1] = data; for (;;) ; }\n")
    output = tmp_path / "guest.elf"
    options = (
        "-ffreestanding -nostdlib -static -no-pie -Wl,-Ttext=0x100000,-z,max-page-size=0x1000,--build-id=none"
    )
    subprocess.run(["cc", *options.split(), "-o", output, source], check=True)
    with output.open("rb") as stream:
        file = ELFFile(stream)  # type: ignore[no-untyped-call,unused-ignore] # older pyelftools has no types
        expected = [
            (s["p_paddr"], s.data(), s["p_memsz"])
            for s in file.iter_segments()
            if s["p_type"] == "PT_LOAD" and s["p_memsz"]
        ]
        entry = file["e_entry"]
    memory = GuestMemory(SIZE)

    result = load_image(read_image(str(output)), memory, BootOptions())

    assert result.entry == entry
    assert [(s.address, s.memory_size) for s in result.segments] == [(a, m) for a, _, m in expected]
    for address, data, memory_size in expected:
        assert memory.read(address, memory_size) == data.ljust(memory_size, b"\0")
    whole = output.read_bytes()
    for size in [*range(0, len(whole), 61), len(whole) - 1]:
        with pytest.raises(ImageError):
            load(whole[:size], memory)


def test_elf_with_as_many_program_headers_as_accepted_is_loaded() -> None:
    unused = [Piece(data=b"", type=0) for _ in range(255)]

    load(elf([Piece(), *unused]))
    assert "absurd 257" in str(refusal(elf([Piece(), *unused, Piece(data=b"", type=0)])))


@pytest.mark.parametrize(
    ("end", "found"), [(3 * layout.GIB, "does not fit"), (3 * layout.GIB + 1, "which is for devices")]
)
def test_elf_segment_up_to_the_device_hole_is_judged_by_memory(end: int, found: str) -> None:
    error = refusal(elf([Piece(memory_size=end - 0x100000)]))

    assert found in str(error)
    if found == "does not fit":
        assert error.hint == "give it at least 3072 MiB with --memory"
