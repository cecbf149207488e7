"""Multiboot 2 headers (Multiboot2 Specification 2.0, section 3.1).

A kernel declares itself by a header in its first 32768 bytes, on an 8-byte boundary, with a list of tags
behind it. A tag that is not optional must be understood, else the kernel is refused. kvmbox understands all
tags of the specification. Three of them tell of EFI firmware, which there is none of: the specification has
them count on EFI platforms only, and kernels for both (Xen) do not mark them as optional, so they are passed
over.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Final

from kvmbox.base.errors import ImageError
from kvmbox.base.value_classes import Value
from kvmbox.boot.image import GuestImage
from kvmbox.boot.multiboot.shared_header import find, placed
from kvmbox.boot.segments import LoadSegment

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode

MAGIC: Final = 0xE85250D6
LOADER_MAGIC: Final = 0x36D76289  # in EAX at entry
SEARCH_SIZE: Final = 32768

_HEADER: Final = struct.Struct("<IIII")  # magic, architecture, header_length, checksum
_TAG: Final = struct.Struct("<HHI")  # type, flags, size
_ALIGN: Final = 8
_OPTIONAL: Final = 1  # flags, bit 0
_ARCHITECTURES: Final = {0: "i386", 4: "MIPS"}
_I386: Final = 0

_END: Final = 0
_INFORMATION_REQUEST: Final = 1
_ADDRESS: Final = 2
_ENTRY_ADDRESS: Final = 3
_CONSOLE_FLAGS: Final = 4
_FRAMEBUFFER: Final = 5
_EFI_BOOT_SERVICES: Final = 7
_EFI_I386_ENTRY: Final = 8
_EFI_AMD64_ENTRY: Final = 9
_RELOCATABLE: Final = 10
_EFI_TAGS: Final = (_EFI_BOOT_SERVICES, _EFI_I386_ENTRY, _EFI_AMD64_ENTRY)
# What an information request can name: the tags of section 3.6. Those that kvmbox has nothing to say in are
# left out of the information, as section 3.1.4 wants it; only an unknown type is a reason to refuse.
_LAST_INFORMATION_TAG: Final = 21

_CONSOLE_REQUIRED: Final = 1 << 0
_EGA_TEXT: Final = 1 << 1

NO_HEADER: Final = f"there is no Multiboot 2 header in its first {SEARCH_SIZE} bytes"


class RelocatableTag(Value):
    """Bounds for the load address: the image lies within [minimum, maximum]. `preference` is 0, 1 or 2."""

    minimum: int
    maximum: int
    align: int
    preference: int


class Multiboot2Header(Value):
    """What the tags of a header ask for. `efi` has the types of tags for EFI firmware.

    `addresses` says where the image goes, whatever its file format.
    `mode` is the linear mode for a kernel that wants one. Without it, `ega_text` says whether the kernel
    takes text.
    """

    offset: int
    addresses: LoadSegment | None
    entry: int | None
    relocatable: RelocatableTag | None
    ega_text: bool
    mode: VideoMode | None
    efi: tuple[int, ...]


def find_multiboot2(data: bytes) -> int | None:
    """The offset of the first header with a right checksum, or None."""
    return find(data, MAGIC, 4, align=_ALIGN, within=SEARCH_SIZE)


def parse_header(image: GuestImage) -> Multiboot2Header:
    """The image's header. ImageError if there is none, or it is damaged, or demands what cannot be given."""
    offset = find_multiboot2(image.data)
    if offset is None:
        raise image.error(NO_HEADER, hint="give it one: magic 0xe85250d6, on an 8-byte boundary")
    _, architecture, length, _ = _HEADER.unpack_from(image.data, offset)
    if architecture != _I386:
        name = _ARCHITECTURES.get(architecture, f"architecture {architecture}")
        raise image.error(f"its Multiboot 2 header is for {name}", hint="build it for i386 (architecture 0)")
    if length < _HEADER.size or offset + length > min(len(image.data), SEARCH_SIZE):
        raise _damaged(
            image,
            f"it has {length} bytes from offset {offset}, beyond the file or its first {SEARCH_SIZE} bytes",
        )
    tags = _tags(image, offset + _HEADER.size, offset + length)
    _check_known(image, tags)
    return Multiboot2Header(
        offset,
        _address_tag(image, offset, tags.get(_ADDRESS)),
        _entry_tag(image, tags.get(_ENTRY_ADDRESS)),
        _relocatable_tag(image, tags.get(_RELOCATABLE)),
        _ega_text(image, tags),
        _mode(image, tags),
        tuple(kind for kind in _EFI_TAGS if kind in tags),
    )


class _Tag(Value):
    flags: int
    position: int  # of what follows type, flags and size
    size: int  # of that


def _tags(image: GuestImage, position: int, end: int) -> dict[int, _Tag]:
    """The tags by their type; of several with one type the last counts, but for those that are unknown."""
    found: dict[int, _Tag] = {}
    while position + _TAG.size <= end:
        kind, flags, size = _TAG.unpack_from(image.data, position)
        if kind == _END:
            break
        if size < _TAG.size or position + size > end:
            raise _damaged(image, f"its tag of type {kind} has {size} bytes, and {end - position} are left")
        tag = _Tag(flags, position + _TAG.size, size - _TAG.size)
        if kind == _INFORMATION_REQUEST:
            _check_request(image, tag)
        if kind not in found or not flags & _OPTIONAL or kind <= _RELOCATABLE:
            found[kind] = tag
        position += -(-size // _ALIGN) * _ALIGN
    return found


def _check_known(image: GuestImage, tags: dict[int, _Tag]) -> None:
    for kind, tag in tags.items():
        if kind > _RELOCATABLE and not tag.flags & _OPTIONAL:
            raise image.error(
                f"its Multiboot 2 header demands an unknown feature (tag {kind})",
                hint="mark the tag as optional (flags bit 0)",
            )


def _check_request(image: GuestImage, tag: _Tag) -> None:
    if tag.flags & _OPTIONAL:
        return
    for (kind,) in struct.iter_unpack("<I", image.data[tag.position : tag.position + tag.size // 4 * 4]):
        if kind > _LAST_INFORMATION_TAG:
            raise image.error(
                f"its Multiboot 2 header demands unknown information (tag {kind})",
                hint="mark the information request as optional (flags bit 0)",
            )


def _words(image: GuestImage, tag: _Tag, count: int, what: str) -> tuple[int, ...]:
    if tag.size < 4 * count:
        raise _damaged(image, f"its {what} tag has {tag.size + _TAG.size} bytes instead of {4 * count + 8}")
    return struct.unpack_from(f"<{count}I", image.data, tag.position)


def _address_tag(image: GuestImage, offset: int, tag: _Tag | None) -> LoadSegment | None:
    if tag is None:
        return None
    header_address, load, *ends = _words(image, tag, 4, "address")
    absurd = partial(_absurd, image)
    if load == 0xFFFF_FFFF:  # from the beginning of the file
        load = header_address - offset
        if load < 0:
            raise absurd(f"header_addr {header_address:#x} is below the header's offset {offset:#x}")
    return placed(image, "Multiboot 2", offset, (header_address, load, *ends), absurd)


def _entry_tag(image: GuestImage, tag: _Tag | None) -> int | None:
    return None if tag is None else _words(image, tag, 1, "entry address")[0]


def _relocatable_tag(image: GuestImage, tag: _Tag | None) -> RelocatableTag | None:
    if tag is None:
        return None
    minimum, maximum, align, preference = _words(image, tag, 4, "relocatable")
    align = align or 1
    if align & (align - 1):
        raise _damaged(image, f"the alignment {align:#x} of its relocatable tag is no power of two")
    if minimum > maximum:
        raise _damaged(image, f"its relocatable tag allows {minimum:#x}..{maximum:#x}, which is nothing")
    if preference > 2:
        raise _damaged(image, f"the preference {preference} of its relocatable tag is none of 0, 1 and 2")
    return RelocatableTag(minimum, maximum, align, preference)


def _ega_text(image: GuestImage, tags: dict[int, _Tag]) -> bool:
    """Whether the kernel takes EGA text: without a flags tag it does."""
    tag = tags.get(_CONSOLE_FLAGS)
    if tag is None:
        return True
    (flags,) = _words(image, tag, 1, "flags")
    if flags & _CONSOLE_REQUIRED and not flags & _EGA_TEXT and _FRAMEBUFFER not in tags:
        raise image.error(
            "its Multiboot 2 header demands a console, and takes neither EGA text nor a frame buffer",
            hint="set bit 1 of console_flags, or give the header a framebuffer tag",
        )
    return bool(flags & _EGA_TEXT)


def _mode(image: GuestImage, tags: dict[int, _Tag]) -> VideoMode | None:
    """The mode that a framebuffer tag asks for. One that is optional and has no preference leaves a kernel
    that takes text with text.
    """
    tag = tags.get(_FRAMEBUFFER)
    if tag is None:
        return None
    wanted = _words(image, tag, 3, "framebuffer")
    if tag.flags & _OPTIONAL and not any(wanted) and _ega_text(image, tags):
        return None
    from kvmbox.firmware.video_modes import nearest

    return nearest(*wanted)


def _absurd(image: GuestImage, why: str) -> ImageError:
    return image.error(
        f"the address tag of its Multiboot 2 header is absurd: {why}",
        hint="check header_addr, load_addr, load_end_addr and bss_end_addr",
    )


def _damaged(image: GuestImage, why: str) -> ImageError:
    return image.error(f"its Multiboot 2 header is damaged: {why}", hint="check header_length and the tags")
