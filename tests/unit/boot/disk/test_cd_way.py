"""The way of CDs: what is one, what it boots, and that nothing on a CD makes it something else."""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot.choose import choose
from kvmbox.boot.disk.cd_way import Cd
from kvmbox.boot.image import GuestImage
from kvmbox.boot.load import BootOptions, load_image
from kvmbox.boot.plan import BootPlan, Refusal
from tests.support.bios_rom import PARAMETERS, make_rom
from tests.support.boot_images import bzimage, multiboot2_header, multiboot_header
from tests.support.disk_images import IMAGE_AT, boot_entry, iso, put, validation

SIGNATURE: Final = b"\x55\xaa"
NO_EMULATION: Final = validation() + boot_entry()


def image(data: bytes) -> GuestImage:
    return GuestImage("os.iso", data)


def with_start(start: bytes, at: int = 0, data: bytes | None = None) -> bytes:
    """A CD with bytes in its first 32 KiB, which are free for anything."""
    cd = bytearray(iso(NO_EMULATION) if data is None else data)
    put(cd, at, start)
    return bytes(cd)


def load(data: bytes, boot: str = "auto", **options: Any) -> tuple[BootPlan, GuestMemory]:
    memory = GuestMemory(layout.MIB * 2)
    return load_image(image(data), memory, BootOptions(boot=boot, bios_rom=make_rom(), **options)), memory


def jump_at_the_end() -> bytes:
    """A CD that could be firmware by its size and its last 16 bytes."""
    return with_start(b"\xe9", 64 * layout.KIB * 3 - 16, iso(NO_EMULATION, sectors=96))


def header_of_a_flat_kernel() -> bytes:
    return multiboot_header(0, (0x100000, 0x100000, 0, 0, 0x100000))


@pytest.mark.parametrize(
    "data",
    [
        iso(NO_EMULATION),
        with_start(SIGNATURE, 510),
        with_start(header_of_a_flat_kernel(), 1024),
        with_start(multiboot2_header(), 1024),
        with_start(bzimage(b"core")),
        jump_at_the_end(),
    ],
    ids=["CD", "isohybrid", "Multiboot 1", "Multiboot 2", "Linux", "firmware"],
)
def test_cd_is_a_cd_whatever_is_in_its_first_sectors(data: bytes) -> None:
    assert choose(image(data)).way.name == "iso"


def test_isohybrid_is_a_disk_where_that_is_asked_for() -> None:
    plan, _ = load(with_start(SIGNATURE, 510), "bios")

    assert plan.format == "bios"


def test_header_on_a_cd_names_the_other_way() -> None:
    choice = choose(image(with_start(header_of_a_flat_kernel(), 1024)))

    assert "--boot multiboot" in choice.hint


@pytest.mark.parametrize(
    ("entry", "packet"),
    [
        (boot_entry(segment=0x1000, sectors=5), (0, 0x1000, 5, 0, 0, 0)),
        (boot_entry(1), (1, 0x7C0, 4, 0, 0, 0)),
        (boot_entry(2), (2, 0x7C0, 4, 0, 0, 0)),
        (boot_entry(3), (3, 0x7C0, 4, 0, 0, 0)),
    ],
    ids=["none", "1200", "1440", "2880"],
)
def test_bios_gets_what_the_catalog_says(entry: bytes, packet: tuple[int, ...]) -> None:
    plan, memory = load(iso(validation() + entry))

    assert (plan.format, plan.state.rip, plan.state.cs.base) == ("iso", 0xFFF0, 0xF0000)
    assert plan.entry == packet[1] << 4
    assert specification(memory) == packet
    assert memory.read(layout.BIOS_ROM + PARAMETERS, 4) == bytes([0, 0xE0, 1, 1])  # it boots; one drive


def specification(memory: GuestMemory) -> tuple[int, ...]:
    """Media, segment and sectors, and the last cylinder, sector and head, as the ROM has them."""
    data = memory.read(layout.BIOS_ROM + PARAMETERS + 20, 19)
    size, media, _, _, lba, _, _, segment, sectors, cylinder, sector, head = struct.unpack("<4BI4H3B", data)
    assert (size, lba) == (0x13, IMAGE_AT)
    return media, segment, sectors, cylinder, sector, head


@pytest.mark.parametrize(
    ("end", "geometry"),
    [
        (bytes((3, 1 << 6 | 17, 9)), (9, 1 << 6 | 17, 3)),  # 4 heads of 17 sectors, 266 cylinders
        (bytes(3), (10, 63, 15)),  # nothing there: what a disk of 2980 CD sectors would have
    ],
    ids=["partition", "none"],
)
def test_emulated_hard_disk_has_the_geometry_of_its_partition(end: bytes, geometry: tuple[int, ...]) -> None:
    cd = with_start(end, IMAGE_AT * 2048 + 451, iso(validation() + boot_entry(4, sectors=1)))

    _, memory = load(cd)

    assert specification(memory) == (4, 0x7C0, 1, *geometry)


def test_cd_that_boots_nothing_is_refused_and_its_boot_sector_is_named() -> None:
    found = Cd().examine(image(iso()))
    assert isinstance(found, Refusal)
    assert found.kind == "a CD image"

    with pytest.raises(ImageError, match="it is a CD image: it has no El Torito boot record") as refused:
        load(iso())
    assert refused.value.hint == "build or copy it again"
    with pytest.raises(ImageError, match="no El Torito") as refused:
        load(with_start(SIGNATURE, 510, iso()))
    assert refused.value.hint == "--boot bios boots it as a disk"


def test_what_is_no_cd_is_refused_whoever_asks() -> None:
    with pytest.raises(ImageError, match="no volume descriptor of a CD"):
        load(bytes(510) + SIGNATURE, "iso")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"command_line": "quiet"}, "--append"),
        ({"bios": "none"}, "--bios none"),
    ],
)
def test_cd_takes_no_options_of_others(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load(iso(NO_EMULATION), **options)
