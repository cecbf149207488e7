"""The Multiboot 2 information (Multiboot2 Specification 2.0, section 3.6): one run of tags.

Not given, because there is nothing to tell: boot device, APM, EFI and network tags, and VBE for text.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.boot.elf.sections import ElfSections
from kvmbox.boot.modules import encoded, module_string
from kvmbox.boot.multiboot.information import LOADER_NAME
from kvmbox.boot.plan import BootContext
from kvmbox.firmware.memory_map import memory_map

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode

_END: Final = 0
_COMMAND_LINE: Final = 1
_LOADER_NAME: Final = 2
_MODULE: Final = 3
_BASIC_MEMORY: Final = 4
_MEMORY_MAP: Final = 6
_VBE: Final = 7
_FRAMEBUFFER: Final = 8
_ELF_SECTIONS: Final = 9
_ACPI_OLD: Final = 14
_ACPI_NEW: Final = 15
_LOAD_BASE: Final = 21

_HEAD: Final = struct.Struct("<II")  # total_size, reserved; and of a tag: type, size
_MAP_ENTRY: Final = struct.Struct("<QQII")  # base_addr, length, type, reserved
_MAP_VERSION: Final = 0
_FRAMEBUFFER_INFO: Final = struct.Struct("<QIIIBBH")  # addr, pitch, width, height, bpp, type, reserved
_EGA_TEXT: Final = (layout.TEXT_SCREEN, 160, 80, 25, 16, 2, 0)  # two bytes a character: 16 bits "per pixel"
_ALIGN: Final = 8

# ACPI Specification 6.5, section 5.2.5.3: the first 20 bytes are all of the RSDP before revision 2.
_RSDP_OLD_SIZE: Final = 20
_RSDP_NEW_SIZE: Final = 36
_RSDP_REVISION: Final = 15

MAX_SECTIONS: Final = 1024
"""Kernels have some dozens. A longer table would not fit into conventional memory, and is left out."""
MAX_SIZE: Final = 0x40000
"""Bytes. More does not fit into conventional memory beside the rest."""


def information(
    context: BootContext,
    module_ranges: tuple[tuple[int, int], ...],
    sections: ElfSections | None,
    *,
    ega_text: bool,
    mode: VideoMode | None,
    load_base: int | None,
) -> bytes:
    """All of the information; it holds no address of its own, so it may go anywhere, 8-byte aligned.

    The command line is what was given, without the image's name in front, as GRUB 2 passes it; a module's
    string is its name and its arguments. UsageError if a string cannot be passed on, or all is too long.
    """
    tags = [
        _tag(_COMMAND_LINE, encoded(context.command_line or "", "the command line") + b"\0"),
        _tag(_LOADER_NAME, LOADER_NAME + b"\0"),
        *(
            _tag(_MODULE, struct.pack("<II", start, end) + module_string(module) + b"\0")
            for module, (start, end) in zip(context.all_modules, module_ranges, strict=True)
        ),
        _tag(_BASIC_MEMORY, struct.pack("<II", *context.basic_memory)),
        _memory_map(context),
    ]
    if mode is not None:
        from kvmbox.boot.multiboot.screen_info import multiboot2_content

        vbe, framebuffer = multiboot2_content(mode)
        tags += [_tag(_VBE, vbe), _tag(_FRAMEBUFFER, framebuffer)]
    elif ega_text:
        tags.append(_tag(_FRAMEBUFFER, _FRAMEBUFFER_INFO.pack(*_EGA_TEXT)))
    if sections is not None and sections.count <= MAX_SECTIONS:
        head = struct.pack("<III", sections.count, sections.entry_size, sections.names)
        tags.append(_tag(_ELF_SECTIONS, head + sections.headers))
    tags += _acpi(context)
    if load_base is not None:
        tags.append(_tag(_LOAD_BASE, struct.pack("<I", load_base)))
    tags.append(_tag(_END, b""))
    body = b"".join(tags)
    if len(body) + _HEAD.size > MAX_SIZE:
        raise UsageError(
            f"the command line, modules and their arguments need {len(body)} bytes, and the boot information"
            f" has room for {MAX_SIZE}",
            hint="pass long data as a module",
        )
    return _HEAD.pack(_HEAD.size + len(body), 0) + body


def _tag(kind: int, content: bytes) -> bytes:
    tag = _HEAD.pack(kind, _HEAD.size + len(content)) + content
    return tag + bytes(-len(tag) % _ALIGN)


def _memory_map(context: BootContext) -> bytes:
    entries = b"".join(
        _MAP_ENTRY.pack(one.base, one.length, one.kind, 0) for one in memory_map(context.platform.memory_size)
    )
    return _tag(_MEMORY_MAP, struct.pack("<II", _MAP_ENTRY.size, _MAP_VERSION) + entries)


def _acpi(context: BootContext) -> list[bytes]:
    """Copies of the RSDP that firmware left at `context.rsdp`: old, and new where it is of revision 2."""
    if not context.rsdp:
        return []
    for address, data in context.firmware:
        start = context.rsdp - address
        if 0 <= start <= len(data) - _RSDP_OLD_SIZE:
            rsdp = data[start : start + _RSDP_NEW_SIZE]
            tags = [_tag(_ACPI_OLD, rsdp[:_RSDP_OLD_SIZE])]
            if rsdp[_RSDP_REVISION] >= 2 and len(rsdp) == _RSDP_NEW_SIZE:
                tags.append(_tag(_ACPI_NEW, rsdp))
            return tags
    return []
