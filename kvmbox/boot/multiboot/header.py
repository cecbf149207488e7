"""Multiboot 1 headers (Multiboot Specification 0.6.96, section 3.1).

A kernel declares itself by a header in its first 8192 bytes, on a 4-byte boundary. Flags 0 to 15 are
demands: a loader that cannot meet one must refuse. kvmbox meets page-aligned modules (bit 0) and memory
information (bit 1). A video mode (bit 2) is a preference, in the specification's words: the kernel gets the
nearest linear mode, or the text screen if it prefers that. Flag 16 says that the header itself tells where
the image goes, whatever its file format ("a.out kludge").
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmbox.base.value_classes import Value
from kvmbox.boot.image import GuestImage
from kvmbox.boot.multiboot.shared_header import find, placed
from kvmbox.boot.segments import LoadSegment

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode

MAGIC: Final = 0x1BADB002
SEARCH_SIZE: Final = 8192

FLAG_PAGE_ALIGN: Final = 1 << 0
FLAG_MEMORY_INFO: Final = 1 << 1
FLAG_VIDEO_MODE: Final = 1 << 2
FLAG_ADDRESSES: Final = 1 << 16
_DEMANDS: Final = 0xFFFF
_TAKEN: Final = FLAG_PAGE_ALIGN | FLAG_MEMORY_INFO | FLAG_VIDEO_MODE

_HEADER: Final = struct.Struct("<III")  # magic, flags, checksum
_ADDRESSES: Final = struct.Struct("<IIIII")  # header, load, load_end, bss_end, entry
_VIDEO: Final = struct.Struct("<IIII")  # mode_type, width, height, depth
_VIDEO_AT: Final = 32  # from the header on, whether or not there are address fields
_LINEAR: Final = 0  # a mode_type; the other one is text


class MultibootHeader(Value):
    """A header with a right checksum: where it is in the file (bytes), and its flags."""

    offset: int
    flags: int


def find_header(data: bytes) -> MultibootHeader | None:
    """The first valid Multiboot 1 header of an image, or None."""
    offset = find(data, MAGIC, 3, align=4, within=SEARCH_SIZE)
    return None if offset is None else MultibootHeader(offset, _HEADER.unpack_from(data, offset)[1])


def check_demands(image: GuestImage, header: MultibootHeader) -> None:
    """ImageError if the header demands what kvmbox cannot give."""
    unmet = header.flags & _DEMANDS & ~_TAKEN
    if unmet:
        bits = ", ".join(str(bit) for bit in range(16) if unmet >> bit & 1)
        raise image.error(
            f"its Multiboot header demands unknown features (flags {bits}); accepted: 0, 1, 2 and 16",
            hint="clear these flags in the header",
        )


def wanted_mode(image: GuestImage, header: MultibootHeader) -> VideoMode | None:
    """The linear mode for a kernel that prefers one; None for text, or without a preference."""
    place = header.offset + _VIDEO_AT
    if not header.flags & FLAG_VIDEO_MODE or place + _VIDEO.size > len(image.data):
        return None
    kind, width, height, depth = _VIDEO.unpack_from(image.data, place)
    if kind != _LINEAR:
        return None
    from kvmbox.firmware.video_modes import nearest

    return nearest(width, height, depth)


def address_override(image: GuestImage, header: MultibootHeader) -> tuple[LoadSegment, int]:
    """What the header's address fields (flag 16) ask for: the one segment, and the physical entry."""
    fields = header.offset + _HEADER.size
    if fields + _ADDRESSES.size > len(image.data):
        raise image.error(
            "it is cut short: the file ends within its Multiboot header", hint="build or copy it again"
        )
    *addresses, entry = _ADDRESSES.unpack_from(image.data, fields)

    def absurd(why: str) -> Exception:
        return image.error(
            f"the address fields of its Multiboot header are absurd: {why}",
            hint="check header_addr, load_addr, load_end_addr, bss_end_addr and entry_addr",
        )

    segment = placed(image, "Multiboot", header.offset, tuple(addresses), absurd)
    if not segment.address <= entry < segment.end:
        raise absurd(f"entry_addr {entry:#x} is outside of {segment.address:#x}..{segment.end:#x}")
    return segment, entry
