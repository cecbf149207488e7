"""What an image is, by its content and never by its name.

The order is: a valid Multiboot 1 header, then the kinds that are named and refused (Multiboot 2, bzImage;
the ELF loader adds PVH), then ELF, then everything else, named as well as it can be (`boot.foreign`).
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.boot.elf import ELF_MAGIC
from kvmbox.boot.foreign import foreign_file, linux_image, multiboot2_kernel
from kvmbox.boot.image import ACCEPTED, GuestImage, not_supported_yet
from kvmbox.boot.multiboot import MultibootHeader, find_header
from kvmbox.errors import ImageError

# Multiboot Specification 2.0, section 3.1: magic, architecture, header length, checksum; 8-byte aligned.
_MULTIBOOT2_MAGIC: Final = (0xE85250D6).to_bytes(4, "little")
_MULTIBOOT2_HEADER: Final = struct.Struct("<IIII")
_MULTIBOOT2_SEARCH_SIZE: Final = 32768

_BOOT_SIGNATURE: Final = b"\x55\xaa"
_BOOT_SIGNATURE_OFFSET: Final = 510


def identify(image: GuestImage) -> MultibootHeader | None:
    """The image's Multiboot 1 header, or None for an ELF file without one; ImageError for all else."""
    data = image.data
    header = find_header(data)
    if header is not None:
        return header
    if _has_multiboot2_header(data):
        raise not_supported_yet(image, multiboot2_kernel())
    linux = linux_image(data)
    if linux is not None:
        raise not_supported_yet(image, linux)
    if data.startswith(ELF_MAGIC):
        return None
    raise _unrecognised(image)


def _has_multiboot2_header(data: bytes) -> bool:
    position = data.find(_MULTIBOOT2_MAGIC, 0, _MULTIBOOT2_SEARCH_SIZE)
    while position >= 0:
        if position % 8 == 0 and position + _MULTIBOOT2_HEADER.size <= len(data):
            words = _MULTIBOOT2_HEADER.unpack_from(data, position)
            if sum(words) & 0xFFFF_FFFF == 0:
                return True
        position = data.find(_MULTIBOOT2_MAGIC, position + 1, _MULTIBOOT2_SEARCH_SIZE)
    return False


def _unrecognised(image: GuestImage) -> ImageError:
    data = image.data
    if not data:
        return image.error(f"the file is empty; {ACCEPTED}", hint="build or copy it again")
    foreign = foreign_file(data)
    if foreign is not None:
        return image.error(f"it is {foreign.kind}; {ACCEPTED}", hint=foreign.hint)
    if data[_BOOT_SIGNATURE_OFFSET : _BOOT_SIGNATURE_OFFSET + 2] == _BOOT_SIGNATURE:
        return image.error(
            f"it looks like a boot sector (55 AA at byte 510); {ACCEPTED}", hint="boot it with --mode real"
        )
    return image.error(
        f"it is of no known kind (first bytes {data[:8].hex(' ')}); {ACCEPTED}",
        hint="a flat 16-bit image needs --mode real",
    )
