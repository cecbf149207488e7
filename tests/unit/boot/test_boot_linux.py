"""Linux: setup headers, where kernel and initial RAM disk go, boot parameters, and vmlinux."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, Module, bundled, load_image
from kvmbox.boot.linux import boot_params, video_mode
from kvmbox.boot.linux.setup_header import HEADER_START
from kvmbox.boot.linux.way import Linux
from kvmbox.boot.plan import BootContext
from kvmbox.firmware.memory_map import memory_map
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.video_modes import VideoMode
from tests.support.boot_images import (
    CODE,
    PT_NOTE,
    Piece,
    bzimage,
    elf,
    elf_note,
    multiboot2_header,
    pvh_note,
)

SIZE = 8 * layout.MIB


def load(
    data: bytes, options: BootOptions | None = None, *, size: int = SIZE
) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(size)
    options = options or BootOptions(firmware_tables=False)
    return load_image(GuestImage("/x/vmlinuz", data), memory, options), memory


def refusal(data: bytes, options: BootOptions | None = None, *, size: int = SIZE) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load(data, options, size=size)
    assert caught.value.hint
    assert str(caught.value).isprintable()
    return caught.value


def params(plan: BootPlan, memory: GuestMemory) -> bytes:
    return memory.read(plan.state.rsi, 4096)


def number(page: bytes, offset: int, size: int) -> int:
    return int.from_bytes(page[offset : offset + size], "little")


def command_line(page: bytes, memory: GuestMemory) -> bytes:
    return memory.read(number(page, 0x228, 4), 3000).split(b"\0")[0]


def test_bzimage_enters_long_mode_0x200_behind_its_start() -> None:
    result, memory = load(bzimage())

    assert result.format == "linux64"
    assert result.entry == result.state.rip == 0x200200
    assert memory.read(0x200000, len(CODE) * 32) == CODE * 32


def test_64_bit_entry_state_is_what_linux_documents() -> None:
    result, memory = load(bzimage())
    state = result.state

    assert (state.cs.selector, state.cs.l, state.cs.db) == (0x10, 1, 0)
    for segment in (state.data, state.ss):
        assert (segment.selector, segment.base, segment.limit) == (0x18, 0, 0xFFFF_FFFF)
    assert state.rsi % 4096 == 0
    descriptors = struct.unpack("<4Q", memory.read(state.gdt.base, state.gdt.limit + 1))
    assert descriptors == (0, 0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF)
    (top,) = struct.unpack("<Q", memory.read(state.cr3, 8))
    (table,) = struct.unpack("<Q", memory.read(top & ~0xFFF, 8))
    assert struct.unpack("<2Q", memory.read(table & ~0xFFF, 16)) == (0x87, 0x200087)


@pytest.mark.parametrize(("version", "xloadflags"), [(0x20F, 0), (0x20C, 0xFE), (0x20B, 1), (0x206, 1)])
def test_kernel_without_64_bit_entry_enters_protected_mode(version: int, xloadflags: int) -> None:
    data = bzimage(version=version, fields={0x236: (xloadflags, 2), 0x214: (0x200000, 4)})

    result, memory = load(data)

    state = result.state
    assert result.format == "linux32"
    assert result.entry == 0x200000
    assert (state.cs.selector, state.cs.db, state.data.selector) == (0x10, 1, 0x18)
    assert (state.cr3, state.cr4, state.efer) == (0, 0, 0)
    assert (state.rdi, state.rbx) == (0, 0)
    assert struct.unpack("<4Q", memory.read(state.gdt.base, 32))[2] == 0x00CF_9B00_0000_FFFF


def test_boot_params_have_the_header_and_what_a_loader_tells() -> None:
    page = params(*load(bzimage(jump=0x6A)))

    image = bzimage()
    assert page[0x1F1:0x210] == image[0x1F1:0x210]
    assert page[0x22C:0x26C] == image[0x22C:0x26C]
    assert page[0x26C:0x290] == bytes(0x24)
    assert number(page, 0x210, 1) == 0xFF  # type_of_loader
    assert number(page, 0x214, 4) == 0x200000  # code32_start: where it really is
    assert number(page, 0x218, 8) == 0  # no initial RAM disk
    assert number(page, 0x1E0, 4) == 7 * 1024  # alt_mem_k
    assert number(page, 0x002, 2) == 7 * 1024  # ext_mem_k
    assert number(page, 0x1EF, 1) == 0  # sentinel
    assert (page[6], page[7], page[0xE], page[0xF], page[0x10]) == (3, 80, 25, 1, 16)
    count = page[0x1E8]
    assert [struct.unpack_from("<QQI", page, 0x2D0 + 20 * i) for i in range(count)] == [
        (one.base, one.length, one.kind) for one in memory_map(SIZE)
    ]
    assert page[0x2D0 + 20 * count :] == bytes(4096 - 0x2D0 - 20 * count)


def test_header_ends_where_its_jump_says_and_never_runs_into_what_follows() -> None:
    fields = dict.fromkeys(range(612, 728), (238, 1))

    short = params(*load(bzimage(jump=0x62, fields=fields)))
    long = params(*load(bzimage(jump=0xFF, sectors=2, fields=fields)))

    assert short[0x264:0x290] == bytes(0x2C)
    assert long[0x264:0x290] == b"\xee" * 0x2C
    assert long[0x290:0x2D0] == bytes(0x40)


def test_memory_beyond_the_hole_counts_below_it() -> None:
    page = params(*load(bzimage(), size=3 * layout.GIB + layout.MIB))

    assert number(page, 0x1E0, 4) == 3 * 1024 * 1024 - 1024
    assert number(page, 0x002, 2) == 0xFFFF


def test_rsdp_is_told_of() -> None:
    memory = GuestMemory(SIZE)

    plan = Linux().plan(GuestImage("k", bzimage()), BootContext(memory, Platform(SIZE), rsdp=0xF0000))

    assert number(dict(plan.writes)[plan.state.rsi], 0x70, 8) == 0xF0000


@pytest.mark.parametrize(
    ("line", "expected"), [(None, b""), ("", b""), ("console=ttyS0 x", b"console=ttyS0 x")]
)
def test_command_line_is_what_was_given(line: str | None, expected: bytes) -> None:
    result, memory = load(bzimage(), BootOptions(command_line=line))

    assert command_line(params(result, memory), memory) == expected


def test_command_line_is_bounded_by_what_the_kernel_takes() -> None:
    result, memory = load(bzimage(), BootOptions(command_line="x" * 100))

    assert command_line(params(result, memory), memory) == b"x" * 100
    with pytest.raises(UsageError, match="101 bytes, and this kernel takes 100"):
        load(bzimage(), BootOptions(command_line="x" * 101))


def test_command_line_is_bounded_where_the_kernel_claims_to_take_anything() -> None:
    data = bzimage(fields={0x238: (0xFFFF_FFFF, 4)})
    room = 0xC000 - 0x9000 - 4096 - 1

    load(data, BootOptions(command_line="x" * room))
    with pytest.raises(UsageError, match=f"takes {room}"):
        load(data, BootOptions(command_line="x" * (room + 1)))


def test_initrd_goes_as_high_as_it_can() -> None:
    result, memory = load(bzimage(), BootOptions(initrd=Module("init", b"i" * 5000)))

    page = params(result, memory)
    start = SIZE - 0x2000
    assert (number(page, 0x218, 4), number(page, 0x21C, 4)) == (start, 5000)
    assert (number(page, 0xC0, 4), number(page, 0xC4, 4)) == (0, 0)
    assert memory.read(start, 5001) == b"i" * 5000 + b"\0"
    assert result.modules == ((start, start + 5000),)


@pytest.mark.parametrize(
    ("highest", "start"), [(0x3FFFFF, 0x3FF000), (0x3FEFFF, 0x3FE000), (0x3FF0FF, 0x3FF000)]
)
def test_initrd_stays_below_the_kernel_s_limit(highest: int, start: int) -> None:
    data = bzimage(fields={0x22C: (highest, 4)})

    assert load(data, BootOptions(initrd=Module("init", b"i")))[0].modules == ((start, start + 1),)


def test_initrd_that_does_not_fit_behind_the_kernel_is_refused() -> None:
    room = SIZE - 0x300000
    load(bzimage(), BootOptions(initrd=Module("init", b"i" * room)))

    error = refusal(bzimage(), BootOptions(initrd=Module("in\x1bit", b"i" * (room + 1))))

    assert "initial RAM disk 'in?it'" in str(error)
    low = bzimage(fields={0x22C: (0x2FFFFF, 4)})
    assert "does not fit" in str(refusal(low, BootOptions(initrd=Module("init", b"i"))))


def test_modules_have_no_meaning() -> None:
    with pytest.raises(UsageError, match="--module has no meaning"):
        load(bzimage(), BootOptions(modules=(Module("m", b""),)))


@pytest.mark.parametrize(
    ("fields", "entry"),
    [
        ({}, 0x200200),
        ({0x258: (0x200001, 8)}, 0x400200),  # rounded up to the alignment
        ({0x258: (0, 8)}, 0x200200),  # never below 1 MiB
        ({0x230: (0x100000, 4), 0x258: (0, 8)}, 0x100200),
        ({0x234: (0, 1)}, 0x100200),  # not relocatable: at code32_start
        ({0x234: (0, 1), 0x214: (0x180000, 4)}, 0x180200),
    ],
)
def test_kernel_goes_where_it_prefers(fields: dict[int, tuple[int, int]], entry: int) -> None:
    assert load(bzimage(fields=fields))[0].entry == entry


def test_kernel_that_is_not_relocatable_gets_room_where_it_moves_to() -> None:
    data = bzimage(fields={0x234: (0, 1), 0x258: (0x700000, 8)})

    load(data)
    assert "0x700000..0x800000" in str(refusal(data, size=SIZE - 4096))


def test_kernel_that_needs_more_memory_says_how_much() -> None:
    error = refusal(bzimage(fields={0x260: (0x1000000, 4)}))

    assert "0x200000..0x1200000" in str(error)
    assert error.hint == "give it at least 18 MiB with --memory"


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({0x230: (0, 4)}, "kernel_alignment 0x0"),
        ({0x230: (3, 4)}, "kernel_alignment 0x3"),
        ({0x230: (0x8000_0000, 4)}, "kernel_alignment 0x80000000"),
        ({0x258: (1 << 63, 8)}, "accepted is 0x100000..0xc0000000"),
        ({0x258: (0xBFE0_0000, 8), 0x260: (0x200001, 4)}, "accepted is 0x100000..0xc0000000"),
        ({0x234: (0, 1), 0x258: (0xFF000, 8)}, "accepted is 0x100000..0xc0000000"),
        ({0x214: (0, 4), 0x1F1: (64, 1), 0x1F4: (0, 4)}, "cut short"),
        ({0x234: (0, 1), 0x214: (0xC000_0000, 4)}, "0xc0000000"),
        ({0x1F4: (66, 4)}, "cut short"),
        ({0x1F4: (0xFFFF_FFFF, 4)}, "cut short"),
        ({0x1F1: (3, 1)}, "cut short"),
        ({0x1F1: (255, 1)}, "cut short"),
        ({0x201: (0x61, 1)}, "damaged setup header"),
        ({0x206: (0x205, 2)}, "boot protocol 2.05): its boot protocol is 2.05; accepted are 2.06"),
        ({0x211: (0, 1)}, "a zImage"),
    ],
)
def test_headers_that_cannot_be_are_refused(fields: dict[int, tuple[int, int]], found: str) -> None:
    assert found in str(refusal(bzimage(fields=fields)))


@pytest.mark.parametrize("fields", [{0x206: (0x205, 2)}, {0x211: (0, 1)}])
def test_old_kernels_are_refused_also_where_linux_is_asked_for(fields: dict[int, tuple[int, int]]) -> None:
    error = refusal(bzimage(fields=fields), BootOptions(boot="linux"))

    assert "cannot be booted" in str(error)


def test_signature_behind_the_kernel_is_not_loaded() -> None:
    result, memory = load(bzimage() + b"signature")

    assert result.segments[0].file_size == 1024
    assert memory.read(0x200400, 9) == bytes(9)


def test_size_of_the_kernel_may_be_rounded_up_or_unknown() -> None:
    assert load(bzimage(CODE * 32 + b"abc"))[0].segments[0].file_size == 1027
    assert load(bzimage(fields={0x1F4: (0, 4)}))[0].segments[0].file_size == 1024


def test_kernel_that_ends_before_its_entry_is_refused() -> None:
    assert "ends before its entry" in str(refusal(bzimage(bytes(0x200))))
    load(bzimage(bytes(0x201)))


def test_setup_of_0_sectors_means_4() -> None:
    result, _ = load(bzimage(sectors=0))

    assert result.segments[0].offset == 5 * 512


def test_kernel_cut_at_every_sector_is_refused() -> None:
    data = bzimage()

    for size in (0x206, 0x210, 0x212, 0x26B, 0x3FF, 0x400, 0x5FF, len(data) - 17):
        assert "cannot boot" in str(refusal(data[:size]))


def test_efi_stub_is_booted_as_linux() -> None:
    assert load(bzimage(fields={0: (0x5A4D, 2)}))[0].format == "linux64"


@pytest.mark.parametrize(("bits", "name"), [(64, "linux64"), (32, "linux32")])
def test_vmlinux_is_known_by_its_note(bits: int, name: str) -> None:
    note = Piece(data=elf_note(b"Linux\0", 0x101, b"\0" * 4), type=PT_NOTE)

    result, memory = load(
        elf([Piece(), note], bits=bits), BootOptions(command_line="a", initrd=Module("i", b"i"))
    )

    page = params(result, memory)
    assert result.format == name
    assert result.entry == 0x100000
    assert (number(page, 0x1FE, 2), page[0x202:0x206], number(page, 0x206, 2)) == (0xAA55, b"HdrS", 0x20F)
    assert command_line(page, memory) == b"a"
    assert memory.read(number(page, 0x218, 4), 1) == b"i"


def test_vmlinux_with_a_pvh_note_boots_by_it_unless_linux_is_asked_for() -> None:
    note = Piece(data=elf_note(b"Linux\0", 0x101, b"\0" * 4), type=PT_NOTE)
    data = elf([Piece(), note, pvh_note(0x100000)], bits=64)

    assert load(data)[0].format == "pvh"
    assert load(data, BootOptions(boot="linux"))[0].format == "linux64"


@pytest.mark.parametrize(
    ("line", "mode", "colors"),
    [
        ("vga=0x317", VideoMode(1024, 768, 16), (5, 11, 6, 5, 5, 0)),
        ("quiet vga=normal vga=786", VideoMode(640, 480, 24), (8, 16, 8, 8, 8, 0)),
        ("vga=0x301 quiet", VideoMode(640, 480, 8), (0, 0, 0, 0, 0, 0)),
    ],
)
def test_vga_of_the_command_line_gives_a_frame_buffer(
    line: str, mode: VideoMode, colors: tuple[int, ...]
) -> None:
    plan, memory = load(bzimage(), BootOptions(command_line=line, firmware_tables=False))

    page = params(plan, memory)
    assert plan.video == mode
    assert page[0x0F] == 0x23  # VIDEO_TYPE_VLFB
    told = struct.unpack_from("<HHHII", page, 0x12)
    assert told == (mode.width, mode.height, mode.depth, 0xE0000000, 256)
    assert struct.unpack_from("<H6B", page, 0x24) == (mode.pitch, *colors)


@pytest.mark.parametrize("line", ["", "vga=normal", "vga=ask", "vga=0xf00", "vga=1", "nvga=0x317"])
def test_other_command_lines_leave_the_text_screen(line: str) -> None:
    plan, memory = load(bzimage(), BootOptions(command_line=line, firmware_tables=False))

    assert (plan.video, params(plan, memory)[0x0F]) == (None, 1)


@pytest.mark.parametrize("line", ["vga=0x399", "vga=best", "vga=-1", "vga=0x10000", "vga=0x304"])
def test_vga_that_is_no_mode_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="vga=") as caught:
        load(bzimage(), BootOptions(command_line=line))
    assert caught.value.hint


def test_elf_without_a_note_boots_as_linux_where_that_is_asked_for() -> None:
    assert load(elf(bits=64))[0].format == "elf64"
    assert load(elf(bits=64), BootOptions(boot="linux"))[0].format == "linux64"


def test_linux_way_for_something_else_is_refused_with_the_reason() -> None:
    assert "neither a bzImage nor" in str(refusal(multiboot2_header() + CODE, BootOptions(boot="linux")))


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_offsets_are_those_of_bootparam_h(tmp_path: Path) -> None:
    if not Path("/usr/include/linux/screen_info.h").exists():
        pytest.skip("needs the kernel's headers")
    fields = {
        "screen_info.ext_mem_k": boot_params._EXT_MEM_K,
        "screen_info.orig_video_mode": boot_params._VIDEO_MODE,
        "screen_info.orig_video_cols": boot_params._VIDEO_COLS,
        "screen_info.orig_video_lines": boot_params._VIDEO_LINES,
        "screen_info.orig_video_isVGA": boot_params._IS_VGA,
        "screen_info.orig_video_points": boot_params._FONT_POINTS,
        "screen_info.lfb_width": video_mode._LINEAR,
        "screen_info.lfb_size": video_mode._LINEAR + video_mode._LINEAR_FIELDS.size - 4,
        "screen_info.lfb_linelength": video_mode._PITCH,
        "screen_info.red_size": video_mode._PITCH + 2,
        "screen_info.blue_pos": video_mode._PITCH + 7,
        "acpi_rsdp_addr": boot_params._ACPI_RSDP,
        "ext_ramdisk_image": boot_params._EXT_RAMDISK_IMAGE,
        "alt_mem_k": boot_params._ALT_MEM_K,
        "e820_entries": boot_params._E820_COUNT,
        "e820_table": boot_params._E820_TABLE,
        "hdr": HEADER_START,
        "hdr.boot_flag": boot_params._BOOT_FLAG,
        "hdr.header": boot_params._MAGIC,
        "hdr.version": boot_params._VERSION,
        "hdr.type_of_loader": boot_params._TYPE_OF_LOADER,
        "hdr.ramdisk_image": boot_params._RAMDISK_IMAGE,
        "hdr.cmd_line_ptr": boot_params._COMMAND_LINE,
    }
    source = tmp_path / "offsets.c"
    checks = "".join(
        f'_Static_assert(__builtin_offsetof(struct boot_params, {name}) == {offset}, "{name}");\n'
        for name, offset in fields.items()
    )
    source.write_text(f"#include <asm/bootparam.h>\n{checks}")

    subprocess.run(["cc", "-fsyntax-only", source], check=True)


def real_mode_image(sectors: int = 2, fields: dict[int, tuple[int, int]] | None = None) -> bytes:
    return bzimage(version=0x207, sectors=sectors, fields={0x214: (0, 4)} | (fields or {}))


@pytest.mark.parametrize("code32", [0, 0xFFFFF])
def test_image_without_32_bit_entry_starts_with_its_setup_code(code32: int) -> None:
    options = BootOptions(command_line="a b", initrd=Module("init", b"i" * 10), firmware_tables=False)

    result, memory = load(real_mode_image(fields={0x214: (code32, 4)}), options)

    assert result.format == "linux16"
    assert result.entry == 0x10200
    assert (result.state.cr0 & 1, result.state.cs.selector, result.state.rip) == (0, 0xF000, 0xFFF0)
    setup = memory.read(0x10000, 1536)
    assert (setup[0x210], setup[0x211]) == (0xFF, 0x81)
    assert number(setup, 0x224, 2) == 0xDE00
    assert number(setup, 0x228, 4) == 0x1E000
    assert memory.read(0x1E000, 4) == b"a b\0"
    assert memory.read(number(setup, 0x218, 4), number(setup, 0x21C, 4)) == b"i" * 10
    assert memory.read(0x100000, len(CODE) * 32) == CODE * 32


def test_bios_enters_the_setup_code_as_linux_documents() -> None:
    rom = Path(bundled.DIRECTORY, "bios.bin").read_bytes()

    result, memory = load(real_mode_image(), BootOptions(bios_rom=rom, firmware_tables=False))

    assert result.format == "linux16"
    segments = struct.pack("<5H", 0, 0x1020, 0xE000, 0x1000, 0x1000)  # IP, CS, SP, SS, and the others
    assert memory.read(layout.BIOS_ROM, len(rom)).count(segments) == 1


def test_setup_code_is_bounded_and_needs_a_bios() -> None:
    load(real_mode_image(63))
    assert "its setup code has 33280 bytes" in str(refusal(real_mode_image(64)))
    assert "calls a BIOS" in str(refusal(real_mode_image(), BootOptions(bios="none")))


def test_command_line_for_setup_code_is_bounded() -> None:
    data = real_mode_image(fields={0x238: (0xFFFF_FFFF, 4)})

    load(data, BootOptions(command_line="x" * 0x1FFF))
    with pytest.raises(UsageError, match="takes 8191"):
        load(data, BootOptions(command_line="x" * 0x2000))
