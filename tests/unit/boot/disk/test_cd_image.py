"""CD images: what a BIOS boots from them, and why it boots nothing."""

from __future__ import annotations

import pytest

from kvmbox.boot.disk.cd_image import (
    FLOPPY_1200,
    FLOPPY_1440,
    FLOPPY_2880,
    HARD_DISK,
    NO_EMULATION,
    BootEntry,
    Iso,
    read_iso,
)
from tests.support.disk_images import CATALOG_AT, CD_SECTOR, boot_entry, iso, reader, section, validation

GOOD = validation() + boot_entry()


def read(image: bytes) -> Iso | None:
    return read_iso(reader(image), len(image))


def problem(image: bytes) -> str:
    found = read(image)
    assert found is not None
    assert found.entry is None
    return found.problem


def test_cd_without_emulation_is_loaded_to_07c0() -> None:
    assert read(iso(GOOD)) == Iso("TEST", BootEntry(NO_EMULATION, 0x7C0, 4, 20), "")


@pytest.mark.parametrize(
    ("media", "kind"),
    [
        (0, NO_EMULATION),
        (1, FLOPPY_1200),
        (2, FLOPPY_1440),
        (3, FLOPPY_2880),
        (4, HARD_DISK),
        (0x24, HARD_DISK),
    ],
)
def test_kind_of_boot_is_that_of_the_default_entry(media: int, kind: str) -> None:
    found = read(iso(validation() + boot_entry(media, 0x1000, 1)))
    assert found is not None
    assert found.entry == BootEntry(kind, 0x1000, 1, 20)


def test_sections_are_named_and_not_booted() -> None:
    catalog = GOOD + section(0xEF, boot_entry(lba=99), last=False) + section(1) + section(2)
    found = read(iso(catalog))
    assert found is not None
    assert found.sections == ("EFI", "PowerPC")
    assert found.entry == BootEntry(NO_EMULATION, 0x7C0, 4, 20)


def test_section_that_says_it_has_65535_entries_ends_the_list() -> None:
    endless = bytearray(section(0xEF, last=False))
    endless[2:4] = b"\xff\xff"
    found = read(iso(GOOD + endless + section(1)))
    assert found is not None
    assert found.sections == ("EFI",)


def test_catalog_for_efi_alone_boots_nothing_on_a_bios() -> None:
    found = read(iso(validation(0xEF) + boot_entry()))
    assert found is not None
    assert found.entry is None
    assert found.sections == ("EFI",)
    assert found.problem == "its boot catalog is for EFI, not for a BIOS"


@pytest.mark.parametrize(
    ("catalog", "words"),
    [
        (None, "no El Torito boot record"),
        (b"\2" + GOOD[1:], "does not begin with a validation entry"),
        (GOOD[:30] + b"\0\0" + GOOD[32:], "does not begin with a validation entry"),
        (validation(checksum=1) + boot_entry(), "checksum"),
        (validation() + boot_entry(indicator=0), "not bootable"),
        (validation() + boot_entry(5), "media type 5"),
        (validation() + boot_entry(sectors=0), "loads no sector"),
        (validation() + boot_entry(segment=0x9000, sectors=129), "beyond 640 KiB"),
        (validation() + boot_entry(segment=0xFFFF, sectors=1), "beyond 640 KiB"),
        (validation() + boot_entry(lba=0), "which it does not have"),
        (validation() + boot_entry(lba=2999, sectors=5), "which it does not have"),
        (validation() + boot_entry(lba=0xFFFF_FFFF), "which it does not have"),
        (validation() + boot_entry(2, lba=2281, sectors=1), "2880 sectors from CD sector 2281"),
    ],
)
def test_catalog_that_boots_nothing_says_why(catalog: bytes | None, words: str) -> None:
    assert words in problem(iso(catalog))


@pytest.mark.parametrize(("segment", "lba"), [(0x9000, 2999), (0x9F80, 20)])
def test_last_places_that_fit_are_booted(segment: int, lba: int) -> None:
    found = read(iso(validation() + boot_entry(segment=segment, lba=lba)))
    assert found is not None
    assert found.entry is not None


def test_diskette_at_the_end_of_the_cd_is_booted() -> None:
    found = read(iso(validation() + boot_entry(2, lba=2280, sectors=1)))
    assert found is not None
    assert found.entry is not None


def test_catalog_beyond_the_end_is_a_problem() -> None:
    assert problem(iso(GOOD)[: CATALOG_AT * CD_SECTOR + CD_SECTOR]) == (
        "its boot catalog is beyond the end of the image"
    )


@pytest.mark.parametrize("size", [0, 16 * CD_SECTOR, 17 * CD_SECTOR - 1])
def test_image_that_ends_before_its_first_descriptor_is_no_cd(size: int) -> None:
    assert read(iso(GOOD)[:size]) is None


def test_descriptors_without_end_are_looked_at_for_a_while() -> None:
    reads = []

    def endless(offset: int, size: int) -> bytes:
        reads.append(offset)
        return b"\2CD001\1".ljust(size, b"\0")

    assert read_iso(endless, 1 << 60) is None
    assert len(reads) < 100


def test_volume_name_is_fit_for_a_line() -> None:
    found = read(iso(volume=b"A\x1b[2J\xff"))
    assert found is not None
    assert found.volume == "A?[2J\N{REPLACEMENT CHARACTER}"
