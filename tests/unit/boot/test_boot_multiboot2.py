"""Multiboot 2: the header's tags, placement, relocation, and the information tags."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, Module, load_image
from kvmbox.boot.multiboot2.information_tags import MAX_SECTIONS
from kvmbox.boot.multiboot2.way import Multiboot2
from kvmbox.boot.plan import BootContext, Offer
from kvmbox.firmware.memory_map import memory_map
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.video_modes import VideoMode, mode_block, number_of
from tests.support.boot_images import (
    CODE,
    ET_DYN,
    Piece,
    elf,
    multiboot2_header,
    multiboot2_tag,
)

SIZE = 8 * layout.MIB
END, LINE, LOADER, MODULE, BASIC, MAP, SCREEN, SECTIONS, RSDP_OLD, RSDP_NEW, BASE = (
    *(0, 1, 2, 3, 4, 6, 8, 9, 14, 15, 21),
)


def load(
    data: bytes, options: BootOptions | None = None, *, size: int = SIZE
) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(size)
    options = options or BootOptions(firmware_tables=False)
    return load_image(GuestImage("/x/kernel", data), memory, options), memory


def refusal(data: bytes, options: BootOptions | None = None) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(data, options)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    return caught.value


def kernel(*tags: bytes, bits: int = 32) -> bytes:
    header = multiboot2_header(*tags)
    padding = bytes(4 if bits == 32 else 0)  # to an 8-byte boundary of the file
    data = padding + header + CODE
    return elf([Piece(data=data)], bits=bits, entry=0x100000 + len(padding) + len(header))


def tags(plan: BootPlan, memory: GuestMemory) -> list[tuple[int, bytes]]:
    """All information tags, walked as a kernel would."""
    at = plan.state.rbx
    assert at % 8 == 0
    total, reserved = struct.unpack("<II", memory.read(at, 8))
    assert reserved == 0
    found, position = [], 8
    while True:
        kind, size = struct.unpack("<II", memory.read(at + position, 8))
        found.append((kind, memory.read(at + position + 8, size - 8)))
        position += -(-size // 8) * 8
        if kind == END:
            assert (size, position) == (8, total)
            return found


def one(plan: BootPlan, memory: GuestMemory, kind: int) -> bytes:
    (content,) = (content for found, content in tags(plan, memory) if found == kind)
    return content


def relocatable(minimum: int, maximum: int, align: int, preference: int) -> bytes:
    return multiboot2_tag(10, struct.pack("<IIII", minimum, maximum, align, preference))


@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot2_elf_enters_protected_mode(bits: int) -> None:
    result, _ = load(kernel(bits=bits))

    assert result.format == "multiboot2"
    assert result.state.rip == result.entry
    assert result.state.rax == 0x36D76289
    assert (result.state.efer, result.state.cr4) == (0, 0)
    assert result.state.cs.db == 1


def test_multiboot2_class_need_not_go_with_the_machine() -> None:
    data = bytearray(kernel())
    data[18:20] = (62).to_bytes(2, "little")  # e_machine: x86-64 in a 32-bit file
    data[16:18] = ET_DYN.to_bytes(2, "little")

    assert load(bytes(data))[0].format == "multiboot2"


def test_information_of_a_plain_boot_is_these_tags_in_order() -> None:
    result, memory = load(kernel())

    found = tags(result, memory)

    assert [kind for kind, _ in found] == [LINE, LOADER, BASIC, MAP, SCREEN, END]
    assert found[0][1] == b"\0"
    assert found[1][1] == b"kvmbox\0"
    assert struct.unpack("<II", found[2][1]) == (639, 7 * 1024)
    assert struct.unpack("<QIIIBBH", found[4][1]) == (0xB8000, 160, 80, 25, 16, 2, 0)


def test_memory_map_has_entries_of_24_bytes() -> None:
    content = one(*load(kernel()), MAP)

    assert struct.unpack_from("<II", content) == (24, 0)
    assert list(struct.iter_unpack("<QQII", content[8:])) == [
        (one.base, one.length, one.kind, 0) for one in memory_map(SIZE)
    ]


def test_command_line_is_without_the_name_and_modules_have_theirs() -> None:
    options = BootOptions(
        command_line="a=1 b",
        modules=(Module("mod one", b"m" * 5000, "x y"), Module("two", b"2")),
        initrd=Module("initrd", b"i"),
        firmware_tables=False,
    )

    result, memory = load(kernel(), options)

    assert one(result, memory, LINE) == b"a=1 b\0"
    modules = [content for kind, content in tags(result, memory) if kind == MODULE]
    assert [content[8:] for content in modules] == [b"initrd\0", b"mod_one x y\0", b"two\0"]
    spans = [struct.unpack_from("<II", content) for content in modules]
    assert [memory.read(start, end - start) for start, end in spans] == [b"i", b"m" * 5000, b"2"]
    assert all(start % 4096 == 0 for start, _ in spans)
    assert list(result.modules) == spans


def test_information_that_outgrows_the_area_gets_a_larger_one() -> None:
    result, memory = load(kernel(), BootOptions(command_line="x" * 0x8000))

    assert one(result, memory, LINE) == b"x" * 0x8000 + b"\0"


def test_information_beyond_its_bound_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="boot information"):
        load(kernel(), BootOptions(command_line="x" * 0x40000))


@pytest.mark.parametrize(("revision", "kinds"), [(0, [RSDP_OLD]), (2, [RSDP_OLD, RSDP_NEW])])
def test_rsdp_tags_are_copies_of_what_firmware_left(revision: int, kinds: list[int]) -> None:
    rsdp = b"RSD PTR \x11KVMBOX" + bytes([revision]) + bytes(range(20))
    firmware = ((0x400, bytes(256)), (0xF0000, bytes(16) + rsdp + bytes(100)))
    context = BootContext(GuestMemory(SIZE), Platform(SIZE), 0xF0010, firmware=firmware)

    plan = Multiboot2().plan(GuestImage("k", kernel()), context)

    memory = context.memory
    for address, content in plan.writes:
        memory.write(address, content)
    found = [(kind, content) for kind, content in tags(plan, memory) if kind in (RSDP_OLD, RSDP_NEW)]
    assert [kind for kind, _ in found] == kinds
    assert [content for _, content in found] == [rsdp[:20], rsdp[:36]][: len(kinds)]


def test_rsdp_that_is_not_there_has_no_tag() -> None:
    found = dict(tags(*load(kernel())))

    assert RSDP_OLD not in found
    assert RSDP_NEW not in found


def test_address_tag_places_part_of_a_flat_file() -> None:
    header = multiboot2_header(
        multiboot2_tag(2, struct.pack("<IIII", 0x200020, 0x200000, 0x200060, 0x200100)),
        multiboot2_tag(3, struct.pack("<I", 0x200044)),
    )
    data = bytes(range(64)) + header + bytes(range(200))

    result, memory = load(data)

    assert result.state.rip == 0x200044
    assert [(s.offset, s.address, s.end) for s in result.segments] == [(32, 0x200000, 0x200100)]
    assert memory.read(0x200000, 0x60) == data[32 : 32 + 0x60]
    assert SECTIONS not in dict(tags(result, memory))


def test_address_tag_with_load_address_minus_one_loads_from_the_file_start() -> None:
    header = multiboot2_header(
        multiboot2_tag(2, struct.pack("<IIII", 0x200040, 0xFFFF_FFFF, 0, 0)),
        multiboot2_tag(3, struct.pack("<I", 0x200041)),
    )
    data = bytes(range(64)) + header + CODE

    result, memory = load(data)

    assert memory.read(0x200000, len(data)) == data
    assert result.entry == 0x200041


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((0x200000, 0x200004, 0, 0), "above header_addr"),
        ((0x200004, 0x200000, 0, 0), "before the start"),
        ((0x20, 0xFFFF_FFFF, 0, 0), "below the header's offset"),
        ((0x200000, 0x200000, 0x200000, 0), "not above load_addr"),
        ((0x200000, 0x200000, 0x300000, 0), "cut short"),
        ((0x200000, 0x200000, 0, 0x200010), "bss_end_addr"),
        ((0x200000, 0x200000, 0, 0xF000_0000), "0xc0000000"),
        ((0xF00000, 0xF00000, 0, 0), "entry 0x200030 lies in nothing"),
    ],
)
def test_absurd_address_tags_are_refused(addresses: tuple[int, int, int, int], found: str) -> None:
    offset = 64 if addresses[1] == 0xFFFF_FFFF else 0
    header = multiboot2_header(
        multiboot2_tag(2, struct.pack("<IIII", *addresses)), multiboot2_tag(3, struct.pack("<I", 0x200030))
    )

    assert found in str(refusal(bytes(offset) + header + CODE))


def test_address_tag_without_entry_is_refused_and_efi_is_named() -> None:
    address = multiboot2_tag(2, struct.pack("<IIII", 0x200000, 0x200000, 0, 0))
    efi = multiboot2_tag(9, struct.pack("<I", 0x200030))

    assert "no entry address tag" in str(refusal(multiboot2_header(address) + CODE))
    assert "EFI tags 9 are not supported" in str(refusal(multiboot2_header(address, efi) + CODE))


def test_entry_tag_wins_over_the_elf_entry() -> None:
    entry = multiboot2_tag(3, struct.pack("<I", 0x100010))

    assert load(kernel(entry))[0].entry == 0x100010
    assert "0x300000 lies in nothing" in str(refusal(kernel(multiboot2_tag(3, struct.pack("<I", 0x300000)))))


def test_header_without_address_tag_outside_elf_is_refused() -> None:
    assert "no ELF file" in str(refusal(multiboot2_header() + CODE))


@pytest.mark.parametrize("flags", [0, 1])
def test_efi_tags_are_passed_over_and_named_by_inspection(flags: int) -> None:
    data = kernel(
        multiboot2_tag(7, optional=bool(flags)),
        multiboot2_tag(9, struct.pack("<I", 0x100000), optional=bool(flags)),
    )

    assert load(data)[0].format == "multiboot2"
    offer = Multiboot2().examine(GuestImage("k", data))
    assert isinstance(offer, Offer)
    assert "EFI tags 7, 9 are not supported" in offer.kind


@pytest.mark.parametrize("kind", [11, 0xFFFF])
def test_unknown_tag_is_refused_by_number_unless_it_is_optional(kind: int) -> None:
    assert f"unknown feature (tag {kind})" in str(refusal(kernel(multiboot2_tag(kind))))
    assert load(kernel(multiboot2_tag(kind, optional=True)))[0].format == "multiboot2"
    mixed = kernel(multiboot2_tag(kind), multiboot2_tag(kind, optional=True))
    assert "unknown feature" in str(refusal(mixed))


def test_unknown_information_is_refused_by_number_unless_it_is_optional() -> None:
    request = struct.pack("<III", 1, 21, 22)

    assert "unknown information (tag 22)" in str(refusal(kernel(multiboot2_tag(1, request))))
    assert load(kernel(multiboot2_tag(1, request, optional=True)))[0].format == "multiboot2"


def test_known_information_that_there_is_none_of_is_left_out() -> None:
    request = struct.pack("<IIII", 5, 7, 12, 16)

    assert load(kernel(multiboot2_tag(1, request)))[0].format == "multiboot2"


@pytest.mark.parametrize(("flags", "has_screen"), [(0, False), (2, True), (3, True)])
def test_screen_is_told_of_to_kernels_that_take_text(flags: int, has_screen: bool) -> None:
    found = dict(tags(*load(kernel(multiboot2_tag(4, struct.pack("<I", flags))))))

    assert (SCREEN in found) == has_screen


def framebuffer(width: int, height: int, depth: int, *, optional: bool = False) -> bytes:
    return multiboot2_tag(5, struct.pack("<III", width, height, depth), optional=optional)


def test_required_console_without_text_and_frame_buffer_is_refused() -> None:
    required = multiboot2_tag(4, struct.pack("<I", 1))
    assert "neither EGA text nor a frame buffer" in str(refusal(kernel(required)))
    assert load(kernel(required, framebuffer(0, 0, 0)))[0].video == VideoMode(1024, 768, 32)


@pytest.mark.parametrize(("width", "height", "depth"), [(800, 600, 16), (320, 200, 32), (1920, 1080, 24)])
@pytest.mark.parametrize("optional", [False, True])
def test_framebuffer_tag_gives_the_mode_and_says_where_it_is(
    width: int, height: int, depth: int, optional: bool
) -> None:
    plan, memory = load(kernel(framebuffer(width, height, depth, optional=optional)))

    found = dict(tags(plan, memory))
    mode = VideoMode(width, height, depth)
    assert plan.video == mode
    told = struct.unpack_from("<QIIIBB", found[SCREEN])
    assert told == (0xE0000000, width * depth // 8, width, height, depth, 1)
    assert found[SCREEN][24:] == (bytes([11, 5, 5, 6, 0, 5]) if depth == 16 else bytes([16, 8, 8, 8, 0, 8]))
    number, _, _, _ = struct.unpack_from("<4H", found[7])
    assert number == number_of(mode) | 1 << 14
    assert found[7][8:14] == b"VESA\0\3"
    assert found[7][8 + 512 :] == mode_block(mode)


def test_framebuffer_of_8_bits_is_told_with_its_colours() -> None:
    found = dict(tags(*load(kernel(framebuffer(640, 480, 8)))))

    assert found[SCREEN][20:26] == bytes([8, 0, 0, 0, 64, 0])
    assert len(found[SCREEN]) == 26 + 64 * 3


def test_framebuffer_without_a_preference_that_is_optional_leaves_text() -> None:
    plan, memory = load(kernel(framebuffer(0, 0, 0, optional=True)))

    assert plan.video is None
    assert struct.unpack_from("<Q", dict(tags(plan, memory))[SCREEN]) == (0xB8000,)
    no_text = multiboot2_tag(4, struct.pack("<I", 0))
    assert load(kernel(framebuffer(0, 0, 0, optional=True), no_text))[0].video is not None


@pytest.mark.parametrize(
    ("tag", "base"),
    [
        (relocatable(0x100000, 0xFFFF_FFFF, 0x1000, 0), 0x100000),  # no preference: as linked
        (relocatable(0x200000, 0xFFFF_FFFF, 0x1000, 0), 0x200000),  # but not below the minimum
        (relocatable(0, 0xFFFF_FFFF, 0x200000, 0), 0x200000),  # nor against the alignment
        (relocatable(0x230000, 0xFFFF_FFFF, 0x20000, 1), 0x240000),
        (relocatable(0, 0xFFFF_FFFF, 0, 1), 0x100000),  # lowest, and clear of low memory
        (relocatable(0, 0xFFFF_FFFF, 0x1000, 2), 0x7FF000),  # highest in memory
        (relocatable(0, 0x3FFFFF, 0x1000, 2), 0x3FF000),  # highest allowed
    ],
)
def test_relocatable_image_goes_where_its_tag_wants_it(tag: bytes, base: int) -> None:
    linked = load(kernel())[0]
    result, memory = load(kernel(tag))

    assert result.segments[0].address == base
    assert result.entry - base == linked.entry - 0x100000 + len(tag)
    assert one(result, memory, BASE) == struct.pack("<I", base)
    assert memory.read(base + 4, 4) == (0xE85250D6).to_bytes(4, "little")


def test_image_that_is_not_relocatable_has_no_load_base() -> None:
    assert BASE not in dict(tags(*load(kernel())))


def test_highest_place_leaves_room_for_modules() -> None:
    options = BootOptions(modules=(Module("m", b"m" * 0x2001),))

    result, memory = load(kernel(relocatable(0, 0xFFFF_FFFF, 0x1000, 2)), options)

    assert result.modules[0][1] <= SIZE
    assert memory.read(result.modules[0][0], 0x2001) == b"m" * 0x2001


@pytest.mark.parametrize(
    ("tag", "found"),
    [
        (relocatable(0x300000, 0x200000, 1, 0), "which is nothing"),
        (relocatable(0, 0x1000, 1, 0), "no place in memory"),
        (relocatable(SIZE, 0xFFFF_FFFF, 1, 2), "no place in memory"),
        (relocatable(0, 0xFFFF_FFFF, 3, 0), "no power of two"),
        (relocatable(0, 0xFFFF_FFFF, 1, 3), "preference 3"),
        (relocatable(0, 0xFFFF_FFFF, 1 << 31, 2), "no place in memory"),
    ],
)
def test_relocation_that_cannot_be_is_refused(tag: bytes, found: str) -> None:
    assert found in str(refusal(kernel(tag)))


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (multiboot2_header(architecture=4), "for MIPS"),
        (multiboot2_header(architecture=9), "architecture 9"),
        (multiboot2_header(length=8), "damaged"),
        (multiboot2_header(length=0x10000), "damaged"),
        (multiboot2_header(multiboot2_tag(4, bytes(4), size=7)), "7 bytes"),
        (multiboot2_header(multiboot2_tag(4, bytes(4), size=100)), "100 bytes"),
        (multiboot2_header(multiboot2_tag(2, bytes(12))), "address tag has 20 bytes"),
        (multiboot2_header(multiboot2_tag(3)), "entry address tag"),
        (multiboot2_header(multiboot2_tag(4)), "flags tag"),
        (multiboot2_header(multiboot2_tag(10, bytes(8))), "relocatable tag"),
    ],
)
def test_damaged_headers_are_refused(header: bytes, found: str) -> None:
    assert found in str(refusal(elf([Piece(data=bytes(4) + header + CODE)])))


def test_header_without_end_tag_ends_with_its_length() -> None:
    header = multiboot2_header(multiboot2_tag(4, struct.pack("<I", 2)), end=False)

    assert load(elf([Piece(data=bytes(4) + header + CODE)]))[0].format == "multiboot2"


@pytest.mark.parametrize(("padding", "is_header"), [(32768 - 24, True), (32768 - 16, False)])
def test_header_counts_wholly_within_the_first_32768_bytes(padding: int, is_header: bool) -> None:
    header = multiboot2_header()
    data = elf([Piece(data=bytes(padding - 84) + header + CODE)])

    if is_header:
        assert load(data)[0].format == "multiboot2"
    else:
        assert "damaged" in str(refusal(data))


def with_sections(count: int) -> bytes:
    """A Multiboot 2 kernel with a null section, one of symbols, and empty ones."""
    data = bytearray(kernel())
    symbols = len(data)
    data += b"symbols!"
    table = len(data)
    data += bytes(40)
    data += struct.pack("<10I", 0, 2, 0, 0, symbols, 8, 0, 0, 4, 0)
    data += bytes(40 * (count - 2))
    data[32:36] = table.to_bytes(4, "little")  # e_shoff
    data[46:52] = struct.pack("<HHH", 40, count, 1)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(data)


def test_elf_sections_are_loaded_and_told_of() -> None:
    result, memory = load(with_sections(2))

    content = one(result, memory, SECTIONS)
    assert struct.unpack_from("<III", content) == (2, 40, 1)
    section = struct.unpack_from("<10I", content, 12 + 40)
    assert memory.read(section[3], 8) == b"symbols!"
    assert section[3] >= result.segments[0].end


def test_section_table_that_is_too_long_is_left_out() -> None:
    assert SECTIONS in dict(tags(*load(with_sections(MAX_SECTIONS))))
    assert SECTIONS not in dict(tags(*load(with_sections(MAX_SECTIONS + 1))))


def test_relocated_image_has_its_sections_behind_it() -> None:
    data = bytearray(with_sections(2))
    header = data.find(multiboot2_header())
    tag = relocatable(0, 0xFFFF_FFFF, 0x1000, 2)
    data[header : header + len(multiboot2_header(tag))] = multiboot2_header(tag)

    result, memory = load(bytes(data))

    section = struct.unpack_from("<10I", one(result, memory, SECTIONS), 12 + 40)
    assert memory.read(section[3], 8) == b"symbols!"
    assert section[3] >= result.segments[0].end


def test_multiboot2_way_for_what_has_no_header_is_refused_with_the_reason() -> None:
    with pytest.raises(ImageError, match="no Multiboot 2 header in its first 32768 bytes"):
        load(elf(), BootOptions(boot="multiboot2"))
