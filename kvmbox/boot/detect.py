"""What kind of image this is, judged by its content and never by its name."""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.boot import elf, multiboot_header
from kvmbox.boot.image import ACCEPTED, GuestImage
from kvmbox.errors import ImageError

_BZIMAGE_MAGIC: Final = b"HdrS"  # Linux, Documentation/arch/x86/boot.rst
_BZIMAGE_MAGIC_OFFSET: Final = 0x202

_MULTIBOOT2_MAGIC: Final = 0xE85250D6  # Multiboot2 Specification 2.0, section 3.1
_MULTIBOOT2_SEARCH_SIZE: Final = 32768
_MULTIBOOT2_ALIGNMENT: Final = 8
_MULTIBOOT2_HEADER: Final = struct.Struct("<IIII")

_BOOT_SIGNATURE: Final = b"\x55\xaa"
_BOOT_SIGNATURE_OFFSET: Final = 510


def is_bzimage(data: bytes) -> bool:
    """Whether this is a Linux kernel with its setup code."""
    return data[_BZIMAGE_MAGIC_OFFSET : _BZIMAGE_MAGIC_OFFSET + len(_BZIMAGE_MAGIC)] == _BZIMAGE_MAGIC


def has_multiboot2_header(data: bytes) -> bool:
    """Whether there is a Multiboot 2 header whose checksum is right."""
    magic = _MULTIBOOT2_MAGIC.to_bytes(4, "little")
    window = data[:_MULTIBOOT2_SEARCH_SIZE]
    position = window.find(magic)
    while position >= 0 and position + _MULTIBOOT2_HEADER.size <= len(window):
        fields = _MULTIBOOT2_HEADER.unpack_from(window, position)
        if position % _MULTIBOOT2_ALIGNMENT == 0 and sum(fields) & 0xFFFF_FFFF == 0:
            return True
        position = window.find(magic, position + 1)
    return False


def unsupported(image: GuestImage, kind: str) -> ImageError:
    """The refusal of a kind that is known but not booted."""
    return image.error(
        f"this is a {kind}, which is not supported yet; {ACCEPTED}",
        hint="add a Multiboot 1 header to the kernel, or link it as a plain ELF executable",
    )


def unrecognised(image: GuestImage) -> ImageError:
    """The refusal of bytes that say nothing about themselves."""
    data = image.data
    if is_bzimage(data):
        return unsupported(image, "Linux bzImage")
    if has_multiboot2_header(data):
        return unsupported(image, "Multiboot 2 kernel")
    if data[_BOOT_SIGNATURE_OFFSET : _BOOT_SIGNATURE_OFFSET + len(_BOOT_SIGNATURE)] == _BOOT_SIGNATURE:
        return image.error(
            f"this looks like a boot sector (55 aa at 510), which must be asked for; {ACCEPTED}",
            hint="boot it with --mode real",
        )
    return image.error(
        f"this is no image of a known kind (it begins with {data[:4].hex(' ')}); {ACCEPTED}",
        hint="if it is flat 16-bit code, boot it with --mode real",
    )


def check_elf_kind(image: GuestImage, parsed: elf.ElfImage) -> None:
    """ImageError if an ELF without a Multiboot 1 header wants an entry that is not supported."""
    if has_multiboot2_header(image.data):
        raise unsupported(image, "Multiboot 2 kernel")
    if parsed.has_pvh_note:
        raise unsupported(image, "PVH kernel (it has a Xen PHYS32_ENTRY note)")


def find_multiboot(image: GuestImage) -> multiboot_header.MultibootHeader | None:
    """The Multiboot 1 header of an image that is to be booted by it; ImageError if that cannot be."""
    header = multiboot_header.find_header(image.data)
    if header is not None:
        multiboot_header.check_demands(image, header)
    return header
