"""The Multiboot 1 information structure (Multiboot Specification 0.6.96, section 3.3).

Every ELF entry gets it, also an ELF file without a Multiboot header: that is kvmbox's own convention, so
that a kernel has one way to learn its command line, memory, modules and symbols. A kernel that asks for video
is told of the linear frame buffer, also in the words of VBE, or of the text screen. The list of drives is
empty. Not given: boot device, a.out symbols, configuration table and APM (flags 1, 4, 8, 10).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

from kvmbox.boot.boot_area import BootArea, InfoWriter
from kvmbox.boot.elf.sections import ElfSections
from kvmbox.boot.image import GuestImage
from kvmbox.boot.modules import boot_string, module_string
from kvmbox.boot.plan import BootContext
from kvmbox.firmware.memory_map import memory_map

INFO_MEMORY: Final = 1 << 0
INFO_COMMAND_LINE: Final = 1 << 2
INFO_MODULES: Final = 1 << 3
INFO_ELF_SECTIONS: Final = 1 << 5
INFO_MEMORY_MAP: Final = 1 << 6
INFO_DRIVES: Final = 1 << 7
INFO_LOADER_NAME: Final = 1 << 9

LOADER_MAGIC: Final = 0x2BADB002  # in EAX at entry
LOADER_NAME: Final = b"kvmbox"

# flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr,
# drives_length, drives_addr, config_table, boot_loader_name
_INFO: Final = struct.Struct("<7I4I6I")
_SCREEN_AT: Final = 72  # behind APM: see screen_info
_INFO_SIZE: Final = 118
_MEMORY_ENTRY: Final = struct.Struct("<IQQI")  # size of what follows, base, length, type
_MODULE_ENTRY: Final = struct.Struct("<IIII")  # start, end, string, reserved


def information(
    image: GuestImage,
    context: BootContext,
    area: BootArea,
    module_ranges: tuple[tuple[int, int], ...],
    *,
    sections: ElfSections | None = None,
    screen: Callable[[InfoWriter], tuple[int, bytes]] | None = None,
) -> tuple[tuple[int, bytes], ...]:
    """The structure, at `boot_area.info`, with its strings and lists, as writes.

    `screen` adds what is to be told of the screen, and gives flags and fields.

    UsageError if they do not fit into the area, or a string cannot be passed on.
    """
    writer = InfoWriter(area)
    place = writer.reserve(_INFO_SIZE)
    entries = memory_map(context.platform.memory_size)
    packed_map = b"".join(
        _MEMORY_ENTRY.pack(_MEMORY_ENTRY.size - 4, one.base, one.length, one.kind) for one in entries
    )
    map_address = writer.add(packed_map, 8)
    loader_name = writer.add_string(LOADER_NAME)
    line = writer.add_string(boot_string(image.name, context.command_line, "the command line"))
    list_address = writer.reserve(len(module_ranges) * _MODULE_ENTRY.size, 16)
    module_list = b"".join(
        _MODULE_ENTRY.pack(start, end, writer.add_string(module_string(module)), 0)
        for module, (start, end) in zip(context.all_modules, module_ranges, strict=True)
    )
    writer.put(list_address, module_list)
    flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_DRIVES | INFO_LOADER_NAME
    symbols = (0, 0, 0, 0)
    if sections is not None:
        flags |= INFO_ELF_SECTIONS
        symbols = (sections.count, sections.entry_size, sections.address, sections.names)
    asked, fields = (0, b"") if screen is None else screen(writer)
    info = _INFO.pack(
        flags | asked | (INFO_MODULES if module_ranges else 0),
        *context.basic_memory,
        0,
        line,
        len(module_ranges),
        list_address if module_ranges else 0,
        *symbols,
        len(packed_map),
        map_address,
        *(0, 0, 0),
        loader_name,
    )
    writer.put(place, (info.ljust(_SCREEN_AT, b"\0") + fields).ljust(_INFO_SIZE, b"\0"))
    return writer.writes
