"""Firmware images, boot sectors and flat images with a BIOS: what is recognised, refused and planned."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, BootPlan, GuestImage, load_image
from kvmbox.boot.choose import choose
from tests.support.bios_rom import make_rom

KIB: Final = layout.KIB
JUMP: Final = b"\xea\x5b\xe0\x00\xf0"
ROM: Final = make_rom()
SECTOR: Final = bytes(510) + b"\x55\xaa"
TRAPS: Final = 0xF0009000


def firmware(size: int, reset: bytes = JUMP) -> bytes:
    body = b"".join(block.to_bytes(2, "little") * (32 * KIB) for block in range(1, size // (64 * KIB) + 1))
    return body[: size - 16] + reset.ljust(16, b"\0")


def load(
    data: bytes, boot: str = "auto", *, bios: str | None = None, **options: Any
) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(2 * layout.MIB)
    wanted = BootOptions(boot=boot, bios=bios, bios_rom=ROM, **options)
    return load_image(GuestImage("image", data), memory, wanted), memory


# --- Firmware ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64 * KIB, 128 * KIB, 256 * KIB, 1024 * KIB])
def test_firmware_ends_at_4_gib_and_its_end_is_copied_below_1_mib(size: int) -> None:
    data = firmware(size)

    plan, memory = load(data)

    low = min(size, 256 * KIB)
    assert plan.format == "firmware"
    assert [(rom.start, rom.size) for rom in memory.roms] == [((4 << 30) - size, size)]
    assert memory.byte_at((4 << 30) - 16) == JUMP[0]
    assert memory.read(layout.MIB - low, low) == data[-low:]
    assert memory.read(layout.MIB - low - 16, 16) == bytes(16)
    cs = plan.state.cs
    assert (cs.selector, cs.base, plan.state.rip) == (0xF000, 0xFFFF_0000, 0xFFF0)


def test_rom_is_no_ram_and_is_mapped_once() -> None:
    data = firmware(64 * KIB)
    _, memory = load(data)

    load_image(GuestImage("image", data), memory, BootOptions())

    assert len(memory.roms) == 1
    assert not memory.contains((4 << 30) - 16, 16)


@pytest.mark.parametrize(
    "reset",
    [b"\xea", b"\xe9\x01\x02", b"\xeb\x00", b"\x90\x90\xe9", b"\x0f\x09\xe9", b"\xfa\xfc\xe9", b"\x66\xea"],
)
def test_firmware_is_known_by_the_jump_at_its_reset_vector(reset: bytes) -> None:
    assert choose(GuestImage("image", firmware(64 * KIB, reset))).way.name == "firmware"


@pytest.mark.parametrize(
    "data",
    [
        firmware(64 * KIB, b"\0"),
        firmware(64 * KIB)[1:],
        bytes(32 * KIB - 16) + JUMP.ljust(16, b"\0"),
        b"",
    ],
    ids=["no jump", "a byte less", "32 KiB", "nothing"],
)
def test_what_does_not_look_like_firmware_is_not_taken_for_it(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"no known kind|empty"):
        choose(GuestImage("image", data))


def test_disk_image_that_ends_like_firmware_is_a_boot_sector() -> None:
    image = GuestImage("image", SECTOR + firmware(64 * KIB)[512:])

    assert choose(image).way.name == "bios"
    assert load(image.data, "firmware")[0].format == "firmware"


@pytest.mark.parametrize("size", [1, 64 * KIB - 1, 16 * layout.MIB + 64 * KIB])
def test_firmware_of_an_absurd_size_is_refused_with_the_reason(size: int) -> None:
    with pytest.raises(ImageError, match=f"its {size} bytes are not a multiple of 64 KiB up to 16 MiB"):
        load(bytes(size), "firmware")


def test_firmware_takes_no_command_line() -> None:
    with pytest.raises(UsageError):
        load(firmware(64 * KIB), command_line="quiet")


# --- Boot sectors -----------------------------------------------------------------------------------------


def test_boot_sector_starts_the_rom_at_its_reset_vector() -> None:
    plan, memory = load(SECTOR)

    assert plan.format == "bios"
    cs = plan.state.cs
    assert (cs.selector, cs.base, plan.state.rip) == (0xF000, 0xF0000, 0xFFF0)
    assert memory.read(layout.BIOS_ROM, 12) == b"kvmbox BIOS\0"
    assert memory.read(0x7C00, 512) == bytes(512)  # the ROM loads it
    assert memory.read(layout.BIOS_ROM + 0x100, 4) == bytes([0, 0x80, 1, 2])  # it boots; two drives


def test_image_without_the_signature_is_no_boot_sector_whoever_asks() -> None:
    with pytest.raises(ImageError, match="no boot signature"):
        load(bytes(512), "bios")


def test_boot_sector_takes_no_command_line() -> None:
    with pytest.raises(UsageError):
        load(SECTOR, command_line="quiet")


# --- Flat images ------------------------------------------------------------------------------------------


def test_flat_image_without_a_bios_has_vectors_that_trap() -> None:
    plan, memory = load(b"\xf4", "real")

    assert memory.read(0, 8) == struct.pack("<II", TRAPS, TRAPS + 6)
    assert memory.read(0x3FC, 8) == struct.pack("<II", TRAPS + 6 * 255, 0)
    assert memory.read(layout.BIOS_ROM + 0x100, 1) == b"\1"
    assert not plan.has_firmware


@pytest.mark.parametrize("address", [0, 2, 0x3FF])
def test_flat_image_in_the_vector_table_keeps_its_place(address: int) -> None:
    _, memory = load(b"image", "real", load_address=address)

    assert memory.read(address, 5) == b"image"
    assert memory.read(0, address) == struct.pack("<256I", *(TRAPS + 6 * n for n in range(256)))[:address]


def test_flat_image_with_the_builtin_bios_is_entered_by_the_rom() -> None:
    plan, memory = load(b"\xf4\xf4", "real", bios="builtin", load_address=0x10000, entry=(0x0FFF, 0x11))

    assert plan.state.rip == 0xFFF0
    assert plan.entry == 0x10001
    parameters = memory.read(layout.BIOS_ROM + 0x100, 20)
    assert (parameters[0], parameters[2]) == (0, 2)
    assert struct.unpack_from("<5H", parameters, 8) == (0x11, 0x0FFF, 0x7C00, 0, 0)
    assert plan.has_firmware


@pytest.mark.parametrize("address", [0x4FF, 0x9FC00 - 1])
def test_flat_image_in_the_data_of_the_bios_is_refused(address: int) -> None:
    with pytest.raises(ImageError, match="overlaps the data of the BIOS"):
        load(b"\xf4\xf4", "real", bios="builtin", load_address=address)
    load(b"\xf4\xf4", "real", load_address=address)


def test_flat_image_can_be_started_as_kvmtool_starts_it() -> None:
    plan, _ = load(bytes(100), "real", load_address=0x10000, entry=(0x1000, 0), segments="cs")

    state = plan.state
    assert (state.cs.base, state.rip, state.rsp) == (0x10000, 0, 0x8000)
    for segment in (state.data, state.ss):
        assert (segment.selector, segment.base) == (0x1000, 0x10000)


def test_entry_with_segments_of_zero_keeps_the_usual_stack() -> None:
    plan, _ = load(bytes(100), "real", entry=(0x07C0, 4), segments="zero")

    state = plan.state
    assert (state.cs.selector, state.rip, state.data.selector, state.rsp) == (0x07C0, 4, 0, 0x7C00)


@pytest.mark.parametrize("entry", [(0, 0x7BFF), (0, 0x7C64), (0x1000, 0)])
def test_entry_outside_of_the_image_is_refused(entry: tuple[int, int]) -> None:
    with pytest.raises(UsageError, match=r"--entry .* outside of the image at 0x7c00..0x7c64"):
        load(bytes(100), "real", entry=entry)
