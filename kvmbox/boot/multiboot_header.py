"""The Multiboot 1 header of an image, and the load plan of its address-override form.

Multiboot Specification 0.6.96, section 3.1. The header lies wholly within the first 8192 bytes of the file,
on a multiple of four:

    offset  field          present
    0       magic          always: 0x1BADB002
    4       flags          always
    8       checksum       always: the sum of the three is 0 modulo 2³²
    12      header_addr    if flags bit 16 is set, as all that follow
    16      load_addr
    20      load_end_addr  0: all of the rest of the file
    24      bss_end_addr   0: no bss
    28      entry_addr

Flags 0 to 15 are demands, of which a loader must refuse what it does not know; 16 to 31 it may ignore.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from kvmbox.boot.image import GuestImage
from kvmbox.boot.segments import LoadSegment

MAGIC: Final = 0x1BADB002
SEARCH_SIZE: Final = 8192

FLAG_PAGE_ALIGN: Final = 1 << 0  # modules on page boundaries: always so here
FLAG_MEMORY_INFO: Final = 1 << 1  # mem_lower, mem_upper, mmap: always given here
FLAG_VIDEO_MODE: Final = 1 << 2
FLAG_ADDRESSES: Final = 1 << 16
_DEMANDS: Final = 0xFFFF

# A video mode is a wish that nothing here can fulfil. Kernels that ask for one are booted all the same, as
# QEMU and GRUB on a serial console do; the information structure says that there is none (bits 11 and 12).
_KNOWN_DEMANDS: Final = FLAG_PAGE_ALIGN | FLAG_MEMORY_INFO | FLAG_VIDEO_MODE

_HEADER: Final = struct.Struct("<III")
_ADDRESSES: Final = struct.Struct("<IIIII")
_WORD: Final = 4


@dataclass(frozen=True, slots=True)
class MultibootHeader:
    """A header whose checksum is right. `offset` is its position in the file."""

    offset: int
    flags: int


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """What the address-override form asks for: one segment, entered at a physical address in it."""

    segment: LoadSegment
    entry: int


def find_header(data: bytes) -> MultibootHeader | None:
    """The first valid Multiboot 1 header of an image, if there is one."""
    magic = MAGIC.to_bytes(_WORD, "little")
    window = data[:SEARCH_SIZE]
    position = window.find(magic)
    while position >= 0 and position + _HEADER.size <= len(window):
        found, flags, checksum = _HEADER.unpack_from(window, position)
        if position % _WORD == 0 and (found + flags + checksum) & 0xFFFF_FFFF == 0:
            return MultibootHeader(position, flags)
        position = window.find(magic, position + 1)
    return None


def check_demands(image: GuestImage, header: MultibootHeader) -> None:
    """ImageError if the header demands what kvmbox does not have."""
    unknown = header.flags & _DEMANDS & ~_KNOWN_DEMANDS
    if unknown:
        bits = ", ".join(str(bit) for bit in range(16) if unknown >> bit & 1)
        raise image.error(
            f"its Multiboot header demands what kvmbox does not know: flag bit {bits} of {header.flags:#x};"
            " accepted are bits 0, 1, 2 and 16",
            hint="clear the bit in the header's flags and correct its checksum",
        )


def plan_addresses(image: GuestImage, header: MultibootHeader) -> AddressPlan:
    """The load plan of a header with FLAG_ADDRESSES; ImageError if its addresses make no sense."""
    position = header.offset + _HEADER.size
    if position + _ADDRESSES.size > min(len(image.data), SEARCH_SIZE):
        raise image.error("its Multiboot header is cut short: the address fields are missing")
    header_address, start, load_end, bss_end, entry = _ADDRESSES.unpack_from(image.data, position)
    offset = header.offset - (header_address - start)
    if header_address < start or offset < 0:
        raise image.error(
            f"its Multiboot header at {header.offset:#x} of the file cannot be loaded at header_addr"
            f" {header_address:#x} with load_addr {start:#x}"
        )
    file_size = load_end - start if load_end else len(image.data) - offset
    if file_size < 0:
        raise image.error(f"its Multiboot load_end_addr {load_end:#x} is below load_addr {start:#x}")
    if offset + file_size > len(image.data):
        raise image.error(
            f"this file is cut short: its Multiboot header loads {offset:#x}..{offset + file_size:#x} of it, and it"
            f" ends at {len(image.data):#x}",
            hint="copy or build the image again",
        )
    memory_size = bss_end - start if bss_end else file_size
    if memory_size < file_size:
        raise image.error(
            f"its Multiboot bss_end_addr {bss_end:#x} is below the end of the loaded data {start + file_size:#x}"
        )
    segment = LoadSegment(index=0, offset=offset, file_size=file_size, address=start, memory_size=memory_size)
    if not segment.address <= entry < segment.end:
        raise image.error(f"its Multiboot entry_addr {entry:#x} is not in the loaded {segment}")
    return AddressPlan(segment, entry)
