"""What is not booted is named, with what would be; and options that contradict each other."""

from __future__ import annotations

import lzma

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import ImageError, UsageError
from kvmbox.base.memory import GuestMemory
from kvmbox.boot import BootOptions, GuestImage, Module, load_image
from kvmbox.boot.choose import choose
from kvmbox.boot.ways import NAMES, ways
from tests.support.boot_images import CODE, Piece, elf, multiboot2_header, multiboot_header


def refusal(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load_image(GuestImage("guest", data), GuestMemory(layout.MIB * 2), BootOptions())
    assert "accepted are x86 ELF32 and ELF64 executables, Multiboot, PVH and Linux kernels" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert caught.value.exit_status == 4
    return caught.value


def portable_executable(machine: int, subsystem: int) -> bytes:
    """The headers of a PE file: e_lfanew, COFF header, and the optional header up to the subsystem."""
    head = b"MZ".ljust(0x3C, b"\0") + (0x80).to_bytes(4, "little")
    coff = b"PE\0\0" + machine.to_bytes(2, "little") + bytes(18)
    return head.ljust(0x80, b"\0") + coff + bytes(68) + subsystem.to_bytes(2, "little")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "empty"),
        (b"\x7fEL", "no known kind (first bytes 7f 45 4c)"),
        (b"hello, world\n", "first bytes 68 65 6c 6c 6f 2c 20 77"),
        (lzma.compress(elf(), lzma.FORMAT_ALONE), "lzma-compressed data"),
        (b"\x04\x22\x4d\x18rest", "lz4-compressed data"),
        (b"\x02\x21\x4c\x18rest", "lz4 (legacy format)-compressed data"),
        (b"\x89LZO\0\r\n\x1a\n", "lzop-compressed data"),
        (b"#!/bin/sh\n", "a script"),
        (b"MZ\x90", "a DOS executable"),
        (portable_executable(0x8664, 10), "an EFI application (PE, x86-64)"),
        (portable_executable(0xAA64, 11), "an EFI driver (PE, AArch64)"),
        (portable_executable(0x14C, 3), "a Windows executable (PE, i386)"),
        (portable_executable(0x1234, 3), "a Windows executable (PE, machine 0x1234)"),
        (portable_executable(0x8664, 10)[:-1], "(PE, x86-64)"),
        (bytes(56) + b"ARM\x64", "a Linux kernel for AArch64"),
        (b"MZ" + bytes(54) + b"RSC\x05", "a Linux kernel for RISC-V"),
        (b"QFI\xfb", "a qcow2 disk image"),
        (b"KDMV", "a VMDK disk image"),
        (bytes(0x8001) + b"CD001", "an ISO 9660 image"),
        (b"!<arch>\n", "an archive of object files"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\x27\x05\x19\x56", "a U-Boot image"),
        (b"\xd0\x0d\xfe\xed", "a flattened device tree"),
        (b"\xcf\xfa\xed\xfe", "a Mach-O executable"),
        (b"070701", "a cpio archive"),
    ],
)
def test_image_of_another_kind_is_named(data: bytes, found: str) -> None:
    error = refusal(data)

    assert found in str(error)
    assert error.hint


@pytest.mark.parametrize("behind", [b"", bytes(512), bytes(0x7E01) + b"CD001"], ids=["512", "1024", "ISO"])
def test_image_with_the_boot_signature_is_a_boot_sector_unless_there_is_no_bios(behind: bytes) -> None:
    image = GuestImage("guest", bytes(510) + b"\x55\xaa" + behind)

    assert choose(image).way.name == "bios"
    assert choose(image, bios="builtin").way.name == "bios"
    assert choose(image, bios="none").way.name == "real"
    assert choose(image, "real").way.name == "real"


def test_multiboot2_magic_with_bad_checksum_or_alignment_does_not_count() -> None:
    bad = multiboot2_header()[:12] + bytes(4)

    assert "Multiboot 2" not in str(refusal(bad))
    assert "Multiboot 2" not in str(refusal(b"abcd" + multiboot2_header()))


def test_multiboot1_header_wins_over_multiboot2() -> None:
    both = elf([Piece(data=multiboot2_header() + multiboot_header() + CODE)])

    result = load_image(GuestImage("guest", both), GuestMemory(layout.MIB * 2), BootOptions())

    assert result.format == "multiboot"


@pytest.mark.parametrize(
    ("options", "data", "found"),
    [
        (BootOptions(boot="real", modules=(Module("m", b""),)), CODE, "--module"),
        (BootOptions(boot="real", command_line=""), CODE, "--append"),
    ],
)
def test_options_of_the_other_mode_are_a_usage_error(options: BootOptions, data: bytes, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        load_image(GuestImage("guest", data), GuestMemory(layout.MIB * 2), options)


def test_image_path_with_control_characters_stays_on_one_line() -> None:
    with pytest.raises(ImageError) as caught:
        load_image(GuestImage("a\nb\x1b[2J\udcff", b""), GuestMemory(layout.MIB), BootOptions())

    assert "'a?b?[2J?'" in str(caught.value)


@pytest.mark.parametrize("bit", range(32))
def test_multiboot_checksums_with_one_wrong_bit_do_not_count(bit: int) -> None:
    wrong_1 = bytearray(multiboot_header(3, (0x100000, 0x100000, 0, 0, 0x100020)) + CODE)
    wrong_2 = bytearray(multiboot2_header())
    wrong_1[8 + bit // 8] ^= 1 << bit % 8
    wrong_2[12 + bit // 8] ^= 1 << bit % 8

    assert "no known kind" in str(refusal(bytes(wrong_1)))
    assert "no known kind" in str(refusal(bytes(wrong_2)))


@pytest.mark.parametrize("header", [multiboot_header(), multiboot2_header()[:16]])
def test_multiboot_headers_cut_at_every_byte_are_refused(header: bytes) -> None:
    for size in range(4, len(header)):
        assert "no known kind" in str(refusal(bytes(16) + header[:size]))


def test_names_of_the_ways_are_theirs() -> None:
    assert [way.name for way in ways()] == list(NAMES)
