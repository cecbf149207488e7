"""The Multiboot 1 information structure (Multiboot Specification 0.6.96, section 3.3).

Every ELF entry gets it, also an ELF file without a Multiboot header: that is kvmbox's own convention, so
that a kernel has one way to learn its command line, memory and modules. Not given: boot device, symbol
table, drives, configuration table, APM and video (flags 1, 4, 5, 7, 8, 10, 11, 12).

Everything is computed first and written last; a command line or module list that does not fit is refused.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Final

from kvmbox import layout
from kvmbox.boot.image import GuestImage, Module, printable
from kvmbox.boot.segments import LoadSegment
from kvmbox.errors import ImageError, UsageError
from kvmbox.lean import Value
from kvmbox.memory import GuestMemory, split_around_hole

INFO_MEMORY: Final = 1 << 0
INFO_COMMAND_LINE: Final = 1 << 2
INFO_MODULES: Final = 1 << 3
INFO_MEMORY_MAP: Final = 1 << 6
INFO_LOADER_NAME: Final = 1 << 9

MEMORY_AVAILABLE: Final = 1
MEMORY_RESERVED: Final = 2

LOADER_NAME: Final = b"kvmbox"

# flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4], mmap_length, mmap_addr,
# drives_length, drives_addr, config_table, boot_loader_name
_INFO: Final = struct.Struct("<7I4I6I")
_MEMORY_ENTRY: Final = struct.Struct("<IQQI")  # size of what follows, base, length, type
_MODULE_ENTRY: Final = struct.Struct("<IIII")  # start, end, string, reserved

# The page at BOOT_INFO: the structure, the memory map (five entries at most), the module list.
_MEMORY_MAP: Final = layout.BOOT_INFO + 0x80
_MODULE_LIST: Final = layout.BOOT_INFO + 0x100
MAX_MODULES: Final = (layout.BOOT_STRINGS - _MODULE_LIST) // _MODULE_ENTRY.size


class BootInformation(Value):
    """What is to be written: (address, bytes) pairs, and where each module goes as (start, end)."""

    writes: tuple[tuple[int, bytes], ...]
    module_ranges: tuple[tuple[int, int], ...]

    def write(self, memory: GuestMemory) -> None:
        """Put it all into guest memory."""
        for address, data in self.writes:
            memory.write(address, data)


def memory_map(memory_size: int) -> list[tuple[int, int, int]]:
    """(base, length, type) of all ranges that a guest with `memory_size` bytes of RAM is told of."""
    low_end = split_around_hole(memory_size)[0][1]
    ranges = [
        (0, min(low_end, layout.LOW_MEMORY_END), MEMORY_AVAILABLE),
        (layout.LOW_MEMORY_END, layout.HIGH_MEMORY_START - layout.LOW_MEMORY_END, MEMORY_RESERVED),
        (layout.HIGH_MEMORY_START, low_end - layout.HIGH_MEMORY_START, MEMORY_AVAILABLE),
        (layout.MMIO_HOLE_START, layout.MMIO_HOLE_END - layout.MMIO_HOLE_START, MEMORY_RESERVED),
    ]
    ranges += [(start, length, MEMORY_AVAILABLE) for start, length in split_around_hole(memory_size)[1:]]
    return [(base, length, kind) for base, length, kind in ranges if length > 0]


def plan_information(
    image: GuestImage,
    segments: Sequence[LoadSegment],
    memory: GuestMemory,
    command_line: str | None,
    modules: Sequence[Module],
) -> BootInformation:
    """Lay out the structure, its strings and the modules.

    ImageError if the modules do not fit into memory behind the image, UsageError if the strings or the
    module list do not fit into their pages or a string cannot be passed on.
    """
    if len(modules) > MAX_MODULES:
        raise UsageError(
            f"{len(modules)} modules are more than the {MAX_MODULES} that fit into the boot information"
        )
    strings = _Strings()
    loader_name = strings.add(LOADER_NAME)
    line = strings.add(_boot_string(image.name, command_line, "the command line"))
    module_ranges = _place_modules(image, segments, memory, modules)
    module_list = b"".join(
        _MODULE_ENTRY.pack(
            start,
            end,
            strings.add(_boot_string(module.name, module.arguments, f"module '{printable(module.name)}'")),
            0,
        )
        for module, (start, end) in zip(modules, module_ranges, strict=True)
    )
    entries = memory_map(memory.size)
    packed_map = b"".join(
        _MEMORY_ENTRY.pack(_MEMORY_ENTRY.size - 4, base, length, kind) for base, length, kind in entries
    )
    low_end = memory.regions[0].end
    info = _INFO.pack(
        INFO_MEMORY
        | INFO_COMMAND_LINE
        | INFO_MEMORY_MAP
        | INFO_LOADER_NAME
        | (INFO_MODULES if modules else 0),
        min(low_end, layout.LOW_MEMORY_END) // layout.KIB,
        max(low_end - layout.HIGH_MEMORY_START, 0) // layout.KIB,
        0,
        line,
        len(modules),
        _MODULE_LIST if modules else 0,
        *(0, 0, 0, 0),
        len(packed_map),
        _MEMORY_MAP,
        *(0, 0, 0),
        loader_name,
    )
    writes = [
        (layout.BOOT_INFO, info),
        (_MEMORY_MAP, packed_map),
        (_MODULE_LIST, module_list),
        (layout.BOOT_STRINGS, strings.data()),
    ]
    writes += [(start, module.data) for module, (start, _) in zip(modules, module_ranges, strict=True)]
    return BootInformation(tuple(writes), module_ranges)


class _Strings:
    """NUL-terminated strings, one behind the other from `layout.BOOT_STRINGS` on."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, text: bytes) -> int:
        """Append `text`; returns its guest-physical address."""
        address = layout.BOOT_STRINGS + self._size
        self._parts.append(text + b"\0")
        self._size += len(text) + 1
        if self._size > layout.BOOT_STRINGS_SIZE:
            raise UsageError(
                f"the command line and module arguments are longer than the {layout.BOOT_STRINGS_SIZE} bytes"
                " that fit into the boot information",
                hint="pass long data as a module",
            )
        return address

    def data(self) -> bytes:
        return b"".join(self._parts)


def _boot_string(name: str, arguments: str | None, what: str) -> bytes:
    # Kernels drop the first word as their own name, so a name must be exactly one word.
    word = "_".join(name.split()) or "guest"
    text = f"{word} {arguments}" if arguments else word
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise UsageError(f"{what} holds a character that cannot be encoded") from error
    if b"\0" in encoded:
        raise UsageError(f"{what} holds a NUL")
    return encoded


def _place_modules(
    image: GuestImage, segments: Sequence[LoadSegment], memory: GuestMemory, modules: Sequence[Module]
) -> tuple[tuple[int, int], ...]:
    """Each module on a page boundary, the first above 1 MiB and all segments below the device hole."""
    limit = memory.regions[0].end
    position = max([layout.HIGH_MEMORY_START, *(s.end for s in segments if s.address < limit)])
    ranges = []
    for module in modules:
        start = -(-position // layout.PAGE_SIZE) * layout.PAGE_SIZE
        position = start + len(module.data)
        if position > limit:
            raise _module_error(image, module, memory)
        ranges.append((start, position))
    return tuple(ranges)


def _module_error(image: GuestImage, module: Module, memory: GuestMemory) -> ImageError:
    return image.error(
        f"its module '{printable(module.name)}' ({len(module.data)} bytes) does not fit behind it into"
        f" {memory.size / layout.MIB:g} MiB of guest memory below {layout.MMIO_HOLE_START:#x}",
        hint="give the guest more with --memory",
    )
