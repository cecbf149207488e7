"""PVH's start information: what a kernel is told at its PVH entry.

Xen's public headers define the structures: `xen/include/public/arch-x86/hvm/start_info.h`, version 1. All
pointers are guest-physical, and an address of 0 means that there is nothing.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.boot.boot_area import BootArea, InfoWriter
from kvmbox.boot.modules import encoded, module_string
from kvmbox.boot.plan import BootContext
from kvmbox.firmware.memory_map import memory_map

START_MAGIC: Final = 0x336EC578
START_VERSION: Final = 1

# magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr, memmap_entries,
# reserved
_START: Final = struct.Struct("<IIIIQQQQII")
_MODULE: Final = struct.Struct("<QQQQ")  # paddr, size, cmdline_paddr, reserved
_MEMORY_ENTRY: Final = struct.Struct("<QQII")  # addr, size, type, reserved; the types are those of E820


def start_information(
    context: BootContext, area: BootArea, module_ranges: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, bytes], ...]:
    """The structure, at `boot_area.info`, with its lists and strings, as writes.

    The command line is what was given, without the image's name in front, as Linux and Xen expect it.
    UsageError if something does not fit into the area, or a string cannot be passed on.
    """
    writer = InfoWriter(area)
    place = writer.reserve(_START.size)
    ranges = memory_map(context.platform.memory_size)
    map_address = writer.add(
        b"".join(_MEMORY_ENTRY.pack(one.base, one.length, one.kind, 0) for one in ranges), 8
    )
    command_line = writer.add_string(encoded(context.command_line or "", "the command line"))
    list_address = writer.reserve(len(module_ranges) * _MODULE.size, 8)
    modules = b"".join(
        _MODULE.pack(start, end - start, writer.add_string(module_string(module)), 0)
        for module, (start, end) in zip(context.all_modules, module_ranges, strict=True)
    )
    writer.put(list_address, modules)
    writer.put(
        place,
        _START.pack(
            START_MAGIC,
            START_VERSION,
            0,
            len(module_ranges),
            list_address if module_ranges else 0,
            command_line,
            context.rsdp,
            map_address,
            len(ranges),
            0,
        ),
    )
    return writer.writes
