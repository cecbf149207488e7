"""Multiboot 1: headers, the address override, the information structure, modules and strings."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, Module, load_image
from kvmbox.boot.boot_area import BootArea
from kvmbox.firmware.video_modes import VideoMode, mode_block, number_of
from tests.support.boot_images import CODE, Piece, elf, multiboot_header

SIZE = 8 * layout.MIB
AREA = BootArea()


def load(
    data: bytes, options: BootOptions | None = None, *, path: str = "/x/kernel", size: int = SIZE
) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(size)
    return load_image(GuestImage(path, data), memory, options or BootOptions()), memory


def refusal(data: bytes, options: BootOptions | None = None, *, size: int = SIZE) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(data, options, size=size)
    return caught.value


def kernel(flags: int = 3) -> bytes:
    return elf([Piece(data=multiboot_header(flags) + CODE)], entry=0x10000C)


def text(memory: GuestMemory, address: int) -> bytes:
    return memory.read(address, AREA.end - address).split(b"\0")[0]


def information(memory: GuestMemory) -> tuple[int, ...]:
    return struct.unpack("<17I", memory.read(AREA.info, 68))


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("bits", [32, 64])
def test_multiboot_elf_enters_protected_mode(flags: int, bits: int) -> None:
    data = elf([Piece(data=multiboot_header(flags) + CODE)], bits=bits, entry=0x10000C)

    result, _ = load(data)

    assert result.format == "multiboot"
    assert result.state.rip == result.entry == 0x10000C
    assert result.state.rax == 0x2BADB002
    assert result.state.rbx == AREA.info
    assert result.state.efer == 0
    assert result.state.cs.selector == layout.GDT_CODE32


def test_multiboot_higher_half_entry_becomes_physical() -> None:
    piece = Piece(data=multiboot_header() + CODE, virtual=0xC0100000, physical=0x100000)

    assert load(elf([piece], entry=0xC010000C))[0].entry == 0x10000C


@pytest.mark.parametrize(("flags", "found"), [(8, "flags 3"), (0x8003, "flags 15"), (0x000F, "flags 3")])
def test_multiboot_demand_that_cannot_be_met_is_refused(flags: int, found: str) -> None:
    error = refusal(kernel(flags))

    assert found in str(error)
    assert error.hint


def video_kernel(kind: int, width: int, height: int, depth: int) -> bytes:
    code = multiboot_header(video=(kind, width, height, depth)) + CODE
    return elf([Piece(data=code)], entry=0x10002C)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ((800, 600, 32), (800, 600, 32)),
        ((0, 0, 0), (1024, 768, 32)),
        ((640, 480, 15), (640, 480, 15)),
        ((1366, 768, 4), (1360, 768, 32)),
        ((0xFFFF_FFFF, 0xFFFF_FFFF, 24), (1024, 768, 24)),
    ],
)
def test_multiboot_kernel_that_asks_for_a_linear_mode_gets_the_nearest(
    wanted: tuple[int, int, int], found: tuple[int, int, int]
) -> None:
    result, memory = load(video_kernel(0, *wanted))

    width, height, depth = found
    assert result.video == VideoMode(width, height, depth)
    pitch = width * ((depth + 7) // 8)
    assert information(memory)[0] & (1 << 11 | 1 << 12) == 1 << 11 | 1 << 12
    control, block, number = struct.unpack("<IIH", memory.read(AREA.info + 72, 10))
    assert memory.read(control, 6) == b"VESA\0\3"
    assert memory.read(block, 256) == mode_block(VideoMode(width, height, depth))
    assert number == number_of(VideoMode(width, height, depth)) | 1 << 14
    told = struct.unpack("<QIIIBB", memory.read(AREA.info + 88, 22))
    assert told == (0xE0000000, pitch, width, height, depth, 1)


def test_multiboot_kernel_that_asks_for_8_bits_is_told_the_colours() -> None:
    _, memory = load(video_kernel(0, 640, 480, 8))

    *_, depth, kind, _, address, count = struct.unpack("<QIIIBBHIH", memory.read(AREA.info + 88, 30))
    assert (depth, kind, count) == (8, 0, 64)
    assert memory.read(address, 12) == bytes([0, 0, 0, 0, 0, 168, 0, 168, 0, 0, 168, 168])


def test_multiboot_colours_are_told_by_position_and_size() -> None:
    _, memory = load(video_kernel(0, 640, 480, 16))

    assert memory.read(AREA.info + 112, 6) == bytes([11, 5, 5, 6, 0, 5])


@pytest.mark.parametrize("image", [elf([Piece(data=multiboot_header(7))]), video_kernel(1, 80, 25, 0)])
def test_multiboot_kernel_that_asks_for_text_is_told_of_the_text_screen(image: bytes) -> None:
    result, memory = load(image)

    assert (result.format, result.video) == ("multiboot", None)
    assert information(memory)[0] & (1 << 11 | 1 << 12) == 1 << 12
    assert struct.unpack("<QIIIBB", memory.read(AREA.info + 88, 22)) == (0xB8000, 160, 80, 25, 16, 2)


def test_multiboot_kernel_that_asks_for_no_video_is_told_of_none() -> None:
    _, memory = load(kernel(3))

    assert information(memory)[0] & (1 << 11 | 1 << 12) == 0
    assert memory.read(AREA.info + 72, 46) == bytes(46)


def test_multiboot_optional_flags_are_ignored() -> None:
    assert load(kernel(0xFFFE_0003))[0].format == "multiboot"


@pytest.mark.parametrize(
    ("padding", "is_multiboot"),
    [(0, True), (8192 - 52 - 32 - 12, True), (8192 - 52 - 32 - 8, False), (2, False)],
)
def test_multiboot_header_counts_only_aligned_in_the_first_8192_bytes(
    padding: int, is_multiboot: bool
) -> None:
    data = elf([Piece(data=bytes(padding) + multiboot_header() + CODE)])

    assert load(data)[0].format == ("multiboot" if is_multiboot else "elf32")


def test_multiboot_header_with_bad_checksum_is_passed_over() -> None:
    bad = multiboot_header()[:8] + bytes(4)

    assert load(elf([Piece(data=bad + CODE)]))[0].format == "elf32"
    assert load(elf([Piece(data=bad + multiboot_header() + CODE)]))[0].format == "multiboot"


def test_multiboot_header_without_addresses_outside_elf_is_refused() -> None:
    assert "flag 16" in str(refusal(multiboot_header() + CODE))


def test_multiboot_addresses_place_part_of_a_flat_file() -> None:
    # The header is at file offset 64; loading starts 32 bytes before it, at file offset 32.
    header = multiboot_header(3, (0x200020, 0x200000, 0x200060, 0x200100, 0x200044))
    data = bytes(range(64)) + header + bytes(range(100, 200))

    result, memory = load(data)

    assert memory.read(0x200000, 0x60) == data[32 : 32 + 0x60]
    assert memory.read(0x200060, 0xA0) == bytes(0xA0)
    assert result.format == "multiboot"
    assert result.state.rip == 0x200044
    assert [(s.offset, s.address, s.end) for s in result.segments] == [(32, 0x200000, 0x200100)]


def test_multiboot_addresses_with_zero_ends_load_the_rest_without_bss() -> None:
    data = multiboot_header(3, (0x200000, 0x200000, 0, 0, 0x200020)) + CODE

    result, memory = load(data)

    assert memory.read(0x200000, len(data)) == data
    assert result.segments[0].memory_size == len(data)


def test_multiboot_addresses_win_over_elf_headers() -> None:
    offset = 52 + 32
    header = multiboot_header(3, (0x300000 + offset, 0x300000, 0, 0, 0x300000 + offset + 32))
    data = elf([Piece(data=header + CODE)])

    result, memory = load(data)

    assert result.entry == 0x300000 + offset + 32
    assert memory.read(0x300000, len(data)) == data
    assert memory.read(0x100000, len(CODE)) == bytes(len(CODE))


@pytest.mark.parametrize(
    ("addresses", "found"),
    [
        ((0x200000, 0x200004, 0, 0, 0x200020), "above header_addr"),
        ((0x200004, 0x200000, 0, 0, 0x200020), "before the start"),
        ((0x200000, 0x200000, 0x200000, 0, 0x200020), "not above load_addr"),
        ((0x200000, 0x200000, 0x100000, 0, 0x200020), "not above load_addr"),
        ((0x200000, 0x200000, 0x200041, 0, 0x200020), "cut short"),
        ((0x200000, 0x200000, 0, 0x20003F, 0x200020), "bss_end_addr"),
        ((0x200000, 0x200000, 0, 0, 0x200040), "entry_addr"),
        ((0x200000, 0x200000, 0, 0, 0x1FFFFF), "entry_addr"),
        ((0x200000, 0x200000, 0, 0xF0000000, 0x200020), "0xc0000000"),
        ((SIZE, SIZE, 0, 0, SIZE), "does not fit"),
    ],
)
def test_multiboot_absurd_addresses_are_refused(
    addresses: tuple[int, int, int, int, int], found: str
) -> None:
    data = multiboot_header(3, addresses) + CODE
    assert len(data) == 0x40

    assert found in str(refusal(data))


def test_multiboot_flat_file_cut_at_every_byte_is_refused() -> None:
    data = multiboot_header(3, (0x200000, 0x200000, 0x200040, 0, 0x200020)) + CODE
    load(data)

    for size in range(len(data)):
        refusal(data[:size])


def test_information_of_a_plain_boot_says_what_is_there() -> None:
    result, memory = load(kernel())
    (
        *head,
        _cmdline,
        mods_count,
        mods_addr,
        sym0,
        sym1,
        sym2,
        sym3,
        map_length,
        map_address,
        drives_length,
        drives_address,
        config,
        loader,
    ) = information(memory)

    assert head == [1 << 0 | 1 << 2 | 1 << 6 | 1 << 7 | 1 << 9, 639, 7 * 1024, 0]
    assert (mods_count, mods_addr, sym0, sym1, sym2, sym3) == (0, 0, 0, 0, 0, 0)
    assert (drives_length, drives_address, config) == (0, 0, 0)
    assert text(memory, loader) == b"kvmbox"
    assert result.modules == ()
    raw = memory.read(map_address, map_length)
    assert [struct.unpack_from("<IQQI", raw, at) for at in range(0, len(raw), 24)] == [
        (20, 0, 0x9FC00, 1),
        (20, 0x9FC00, 0x400, 2),
        (20, 0xF0000, 0x10000, 2),
        (20, 0x100000, 7 * layout.MIB, 1),
        (20, 0xD0000000, 0x1000, 2),
        (20, 0xE0000000, 0x1000000, 2),
        (20, 0xFEC00000, 0x1400000, 2),
    ]
    assert map_length == 7 * 24


def test_information_of_5_gib_gives_upper_memory_below_the_hole() -> None:
    _, memory = load(kernel(), size=5 * layout.GIB)

    assert information(memory)[2] == (3 * layout.GIB - layout.MIB) // 1024
    assert information(memory)[11] == 8 * 24


@pytest.mark.parametrize(
    ("path", "command_line", "expected"),
    [
        ("/a/b/kernel.elf", None, b"kernel.elf"),
        ("kernel.elf", "", b"kernel.elf"),
        ("kernel.elf", "a=1 b", b"kernel.elf a=1 b"),
        ("my kernel\n.elf", "x", b"my_kernel_.elf x"),
        ("k", "caf\u00e9 \udcff", b"k caf\xc3\xa9 \xff"),
    ],
)
def test_command_line_starts_with_the_name_as_one_word(
    path: str, command_line: str | None, expected: bytes
) -> None:
    _, memory = load(kernel(), BootOptions(command_line=command_line), path=path)

    assert text(memory, information(memory)[4]) == expected


def test_command_line_of_the_largest_size_fits_and_one_more_does_not() -> None:
    long = "x" * 8192
    _, memory = load(kernel(), BootOptions(command_line=long))

    assert text(memory, information(memory)[4]) == b"kernel " + long.encode()
    with pytest.raises(UsageError, match="longer than the 12288 bytes"):
        load(kernel(), BootOptions(command_line="x" * AREA.info_size))


@pytest.mark.parametrize("command_line", ["a\0b", "\ud800"])
def test_command_line_that_cannot_be_passed_is_a_usage_error(command_line: str) -> None:
    with pytest.raises(UsageError, match="command line"):
        load(kernel(), BootOptions(command_line=command_line))


def test_modules_lie_on_pages_behind_the_image() -> None:
    modules = (Module("one.bin", b"1" * 5000, "a b"), Module("two", b""), Module("three", b"333"))
    data = elf([Piece(data=multiboot_header() + CODE, memory_size=0x1001)], entry=0x10000C)

    result, memory = load(data, BootOptions(modules=modules))

    flags, *_, count, address = information(memory)[:7]
    assert flags & 1 << 3
    assert count == 3
    entries = [struct.unpack("<4I", memory.read(address + 16 * i, 16)) for i in range(3)]
    assert [(start, end) for start, end, _, _ in entries] == list(result.modules)
    assert result.modules == ((0x102000, 0x102000 + 5000), (0x104000, 0x104000), (0x104000, 0x104003))
    assert [text(memory, s) for _, _, s, _ in entries] == [b"one.bin a b", b"two", b"three"]
    assert memory.read(0x102000, 5001) == b"1" * 5000 + b"\0"
    assert memory.read(0x104000, 4) == b"333\0"


def test_modules_of_a_kernel_in_low_memory_lie_above_1_mib() -> None:
    data = elf([Piece(data=multiboot_header() + CODE, virtual=0x10000)], entry=0x10000)

    result, _ = load(data, BootOptions(modules=(Module("m", b"m"),)))

    assert result.modules == ((0x100000, 0x100001),)


def test_modules_of_a_kernel_with_a_segment_above_4_gib_lie_below() -> None:
    data = elf([Piece(), Piece(virtual=4 * layout.GIB, data=b"x")], bits=64)

    result, _ = load(data, BootOptions(modules=(Module("m", b"m"),)), size=3 * layout.GIB + layout.MIB)

    assert result.modules == ((0x101000, 0x101001),)


def test_module_that_just_fits_is_loaded_and_one_byte_more_refused() -> None:
    room = SIZE - 0x101000
    result, memory = load(kernel(), BootOptions(modules=(Module("big", b"m" * room),)))

    assert result.modules == ((0x101000, SIZE),)
    assert memory.read(SIZE - 1, 1) == b"m"
    error = refusal(kernel(), BootOptions(modules=(Module("big\x1b", b"m" * (room + 1)),)))
    assert "module 'big?'" in str(error)
    assert "--memory" in str(error.hint)


def test_modules_are_as_many_as_the_boot_information_has_room_for() -> None:
    modules = tuple(Module(f"m{i:03}", b"x") for i in range(500))
    result, memory = load(kernel(), BootOptions(modules=modules))

    assert len(result.modules) == information(memory)[5] == 500
    last = struct.unpack("<4I", memory.read(information(memory)[6] + 499 * 16, 16))
    assert last[:2] == result.modules[-1]
    assert text(memory, last[2]) == b"m499"
    assert text(memory, information(memory)[16]) == b"kvmbox"
    with pytest.raises(UsageError, match="longer than the 12288 bytes"):
        load(kernel(), BootOptions(modules=modules * 2))


def test_module_arguments_that_are_too_long_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="longer than"):
        load(kernel(), BootOptions(modules=(Module("m", b"", "x" * AREA.info_size),)))


@pytest.mark.parametrize("bits", [32, 64])
def test_plain_elf_gets_the_same_information(bits: int) -> None:
    result, memory = load(elf(bits=bits), BootOptions(command_line="hi", modules=(Module("m", b"data"),)))

    assert result.state.rbx == AREA.info
    assert text(memory, information(memory)[4]) == b"kernel hi"
    assert memory.read(result.modules[0][0], 4) == b"data"


def test_multiboot_bss_end_at_the_end_of_the_data_means_no_bss() -> None:
    data = multiboot_header(3, (0x200000, 0x200000, 0, 0x200040, 0x200020)) + CODE

    segments = load(data)[0].segments

    assert [(s.index, s.file_size, s.memory_size) for s in segments] == [(0, 0x40, 0x40)]


def test_information_of_a_guest_without_high_memory_says_so() -> None:
    data = elf([Piece(data=multiboot_header() + CODE, virtual=0x10000)], entry=0x10000)

    _, memory = load(data, size=layout.MIB)

    assert information(memory)[1:3] == (639, 0)


def test_multiboot_addresses_with_zero_end_load_from_the_middle_of_the_file() -> None:
    data = bytes(range(64)) + multiboot_header(3, (0x200020, 0x200000, 0, 0, 0x200040)) + CODE

    result, memory = load(data)

    assert [(s.offset, s.file_size, s.memory_size) for s in result.segments] == [(32, 96, 96)]
    assert memory.read(0x200000, 97) == data[32:] + b"\0"
