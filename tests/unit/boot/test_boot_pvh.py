"""PVH: the note, the entry, the start information."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, Module, load_image
from kvmbox.boot.cpu_state import CR0_ET, CR0_PE, INITIAL_TSS
from kvmbox.boot.elf.notes import MAX_NOTES
from kvmbox.boot.plan import BootContext
from kvmbox.boot.pvh.way import Pvh
from kvmbox.firmware.memory_map import memory_map
from kvmbox.firmware.platform import Platform
from tests.support.boot_images import (
    CODE,
    ET_DYN,
    PT_INTERP,
    PT_NOTE,
    Piece,
    elf,
    elf_note,
    multiboot_header,
    pvh_note,
)

SIZE = 4 * layout.MIB


def load(data: bytes, options: BootOptions | None = None) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(SIZE)
    options = options or BootOptions(firmware_tables=False)
    return load_image(GuestImage("/x/kernel", data), memory, options), memory


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(data)
    assert caught.value.hint
    return caught.value


def start_info(memory: GuestMemory, address: int) -> tuple[int, ...]:
    return struct.unpack("<IIIIQQQQII", memory.read(address, 56))


def text(memory: GuestMemory, address: int) -> bytes:
    return memory.read(address, 200).split(b"\0")[0]


def with_notes(notes: bytes) -> bytes:
    return elf([Piece(), Piece(data=notes, type=PT_NOTE)])


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize(
    ("bits", "machine"), [(32, 3), (64, 62), (32, 62), (64, 3)], ids=["i386", "x86-64", "x32", "64-bit i386"]
)
def test_pvh_note_gives_the_entry_in_a_file_of_any_class(bits: int, machine: int, size: int) -> None:
    data = elf([Piece(), pvh_note(0x100008, size)], bits=bits, machine=machine, entry=0xFFFF_0000)

    result, _ = load(data)

    assert result.format == "pvh"
    assert result.entry == result.state.rip == 0x100008


def test_pvh_entry_state_is_what_xen_documents() -> None:
    state = load(elf([Piece(), pvh_note(0x100000)]))[0].state

    assert (state.cr0, state.cr3, state.cr4, state.efer) == (CR0_PE | CR0_ET, 0, 0, 0)
    for segment in (state.cs, state.data, state.ss):
        assert (segment.base, segment.limit, segment.db, segment.l) == (0, 0xFFFF_FFFF, 1, 0)
    assert (INITIAL_TSS.base, INITIAL_TSS.limit, INITIAL_TSS.type) == (0, 0x67, 11)
    assert state.rbx == 0x9000


def test_pvh_position_independent_file_is_taken_at_its_addresses() -> None:
    result, memory = load(elf([Piece(), pvh_note(0x100000)], file_type=ET_DYN))

    assert result.format == "pvh"
    assert memory.read(0x100000, len(CODE)) == CODE


def test_pvh_is_preferred_to_multiboot_and_the_other_way_can_be_asked_for() -> None:
    data = elf([Piece(data=multiboot_header() + CODE), pvh_note(0x100010)], entry=0x10000C)

    assert load(data)[0].format == "pvh"
    assert load(data, BootOptions(boot="multiboot"))[0].format == "multiboot"
    assert load(data, BootOptions(boot="elf"))[0].format == "elf32"


def test_start_information_of_a_plain_boot() -> None:
    result, memory = load(elf([Piece(), pvh_note(0x100000)]))

    magic, version, flags, count, modules, line, rsdp, map_at, map_count, reserved = start_info(
        memory, result.state.rbx
    )

    assert (magic, version, flags, reserved) == (0x336EC578, 1, 0, 0)
    assert (count, modules, rsdp) == (0, 0, 0)
    assert text(memory, line) == b""
    assert [struct.unpack("<QQII", memory.read(map_at + 24 * i, 24)) for i in range(map_count)] == [
        (one.base, one.length, one.kind, 0) for one in memory_map(SIZE)
    ]


def test_start_information_has_command_line_without_name_and_initrd_first() -> None:
    options = BootOptions(
        command_line="console=ttyS0",
        modules=(Module("second", b"22", "a b"),),
        initrd=Module("init.gz", b"111"),
        firmware_tables=False,
    )

    result, memory = load(elf([Piece(), pvh_note(0x100000)]), options)

    _, _, _, count, at, line, *_ = start_info(memory, result.state.rbx)
    modules = [struct.unpack("<QQQQ", memory.read(at + 32 * i, 32)) for i in range(count)]
    assert text(memory, line) == b"console=ttyS0"
    assert [memory.read(start, size) for start, size, _, _ in modules] == [b"111", b"22"]
    assert [text(memory, string) for _, _, string, _ in modules] == [b"init.gz", b"second a b"]
    assert all(start % 4096 == 0 for start, *_ in modules)


def test_start_information_points_to_the_rsdp() -> None:
    memory = GuestMemory(SIZE)
    image = GuestImage("kernel", elf([Piece(), pvh_note(0x100000)]))

    plan = Pvh().plan(image, BootContext(memory, Platform(SIZE), rsdp=0xF0000))

    written = dict(plan.writes)
    assert struct.unpack("<IIIIQQQQII", written[plan.state.rbx])[6] == 0xF0000


@pytest.mark.parametrize(
    ("entry", "size", "found"),
    [
        (0xFFFFF, 4, "0xfffff lies in no loaded segment"),
        (0x100020, 4, "0x100020 lies in no loaded segment"),
        (1 << 32, 8, "not below 4 GiB"),
        (0x100000, 2, "its PVH note has 2 bytes"),
        (0x100000, 12, "its PVH note has 12 bytes"),
        (0, 0, "its PVH note has 0 bytes"),
    ],
)
def test_pvh_entry_that_cannot_be_is_refused(entry: int, size: int, found: str) -> None:
    assert found in str(refusal(elf([Piece(), pvh_note(entry, size)])))


def test_pvh_file_with_an_interpreter_is_refused() -> None:
    data = elf([Piece(), pvh_note(0x100000), Piece(data=b"/lib/ld.so", type=PT_INTERP)])

    assert "dynamically linked" in str(refusal(data))


@pytest.mark.parametrize(("size", "is_pvh"), [(20, True), (19, False), (12, False), (0, False)])
def test_pvh_note_counts_only_within_its_segment(size: int, is_pvh: bool) -> None:
    note = Piece(data=elf_note(b"Xen\0", 18, struct.pack("<I", 0x100000)), file_size=size, type=PT_NOTE)

    assert load(elf([Piece(), note]))[0].format == ("pvh" if is_pvh else "elf32")


@pytest.mark.parametrize("descriptor", [b"", b"1", b"1234", b"12345"])
def test_pvh_note_behind_a_padded_descriptor_is_found(descriptor: bytes) -> None:
    xen = elf_note(b"Xen\0", 18, struct.pack("<I", 0x100000))

    assert load(with_notes(elf_note(b"GNU\0", 18, descriptor) + xen))[0].format == "pvh"


def test_pvh_note_padded_to_8_bytes_is_found() -> None:
    first = struct.pack("<III", 4, 4, 1) + b"GNU\0" + b"1234" + bytes(4)
    xen = struct.pack("<III", 4, 4, 18) + b"Xen\0" + struct.pack("<I", 0x100000)

    assert load(with_notes(first + xen))[0].format == "pvh"


@pytest.mark.parametrize("name", [b"xen\0", b"Xen2", b"GNU\0"])
def test_note_of_another_owner_or_type_is_none_of_pvh(name: bytes) -> None:
    assert load(with_notes(elf_note(name, 18, struct.pack("<I", 0x100000))))[0].format == "elf32"
    assert load(with_notes(elf_note(b"Xen\0", 6, b"linux\0")))[0].format == "elf32"


@pytest.mark.parametrize(("before", "is_pvh"), [(MAX_NOTES - 1, True), (MAX_NOTES, False)])
def test_notes_are_looked_at_up_to_a_bound(before: int, is_pvh: bool) -> None:
    notes = elf_note(b"GNU\0", 1, b"") * before + elf_note(b"Xen\0", 18, struct.pack("<I", 0x100000))

    assert load(with_notes(notes))[0].format == ("pvh" if is_pvh else "elf32")


def test_bound_of_notes_is_that_of_all_segments_together() -> None:
    half = elf_note(b"GNU\0", 1, b"") * (MAX_NOTES // 2)
    xen = elf_note(b"Xen\0", 18, struct.pack("<I", 0x100000))

    found = [
        load(elf([Piece(), *(Piece(data=notes, type=PT_NOTE) for notes in (half, last, xen))]))[0].format
        for last in (half[: -len(half) // 2], half)
    ]

    assert found == ["pvh", "elf32"]


def test_pvh_way_for_what_has_no_note_is_refused_with_the_reason() -> None:
    for data, found in ((elf(), "no PVH note"), (b"text", "no ELF file")):
        with pytest.raises(ImageError, match=found):
            load(data, BootOptions(boot="pvh"))


def test_pvh_command_line_that_does_not_fit_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="longer than"):
        load(elf([Piece(), pvh_note(0x100000)]), BootOptions(command_line="x" * 0x3000))


def test_pvh_refusal_leaves_memory_alone() -> None:
    memory = GuestMemory(SIZE)

    with pytest.raises(ImageError):
        load_image(GuestImage("k", elf([Piece(), pvh_note(0)])), memory, BootOptions())

    assert memory.read(0, SIZE) == bytes(SIZE)
