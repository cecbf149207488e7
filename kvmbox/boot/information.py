"""The Multiboot 1 information structure: what the guest is told about memory, command line and modules.

Multiboot Specification 0.6.96, section 3.3. Every ELF entry gets it, Multiboot or not. It lies in the page
at layout.BOOT_INFO; its strings lie at layout.BOOT_STRINGS; modules lie on pages above the image.

Not given, and their flags clear: boot device, a.out symbols or ELF section headers (the guest knows its own
file better), drives, ROM configuration table, APM table, video modes and framebuffer.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvmbox import layout
from kvmbox.boot.image import BootModule, GuestImage, printable
from kvmbox.boot.segments import LoadSegment, memory_hint
from kvmbox.memory import GuestMemory

LOADER_NAME: Final = "kvmbox"

FLAG_MEMORY: Final = 1 << 0
FLAG_COMMAND_LINE: Final = 1 << 2
FLAG_MODULES: Final = 1 << 3
FLAG_MEMORY_MAP: Final = 1 << 6
FLAG_LOADER_NAME: Final = 1 << 9

MEMORY_USABLE: Final = 1
MEMORY_RESERVED: Final = 2

# flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms (16 bytes), mmap_length,
# mmap_addr, drives_length, drives_addr, config_table, boot_loader_name, apm_table
_INFORMATION: Final = struct.Struct("<IIIIIII16xIIIIIII")
_MODULE: Final = struct.Struct("<IIII")
_MAP_ENTRY: Final = struct.Struct("<IQQI")
_MAP_ENTRY_SIZE_FIELD: Final = 4  # mmap entries say how many bytes follow their size field

# Within the page: the structure with room for its video fields, the map, the modules.
_MAP_ADDRESS: Final = layout.BOOT_INFO + 0x80
_MODULES_ADDRESS: Final = layout.BOOT_INFO + 0x100
MAX_MODULES: Final = (layout.BOOT_STRINGS - _MODULES_ADDRESS) // _MODULE.size


@dataclass(frozen=True, slots=True)
class MemoryRange:
    """An entry of the memory map, in bytes; `kind` is MEMORY_USABLE or MEMORY_RESERVED."""

    start: int
    end: int
    kind: int


@dataclass(frozen=True, slots=True)
class BootInformation:
    """All of the information, laid out but not yet written: `page` and `strings` as bytes."""

    page: bytes
    strings: bytes
    modules: tuple[tuple[int, bytes], ...]

    def write(self, memory: GuestMemory) -> None:
        """Put it all into guest memory."""
        memory.write(layout.BOOT_INFO, self.page)
        memory.write(layout.BOOT_STRINGS, self.strings)
        for address, data in self.modules:
            memory.write(address, data)


def memory_map(memory: GuestMemory) -> list[MemoryRange]:
    """The guest's memory map in ascending order: RAM, and what no guest may take for RAM."""
    low_end = min(memory.size, layout.MMIO_HOLE_START)
    ranges = [
        MemoryRange(0, layout.LOW_MEMORY_END, MEMORY_USABLE),
        MemoryRange(layout.LOW_MEMORY_END, layout.HIGH_MEMORY_START, MEMORY_RESERVED),
        MemoryRange(layout.HIGH_MEMORY_START, low_end, MEMORY_USABLE),
        MemoryRange(layout.MMIO_HOLE_START, layout.MMIO_HOLE_END, MEMORY_RESERVED),
    ]
    ranges += [
        MemoryRange(region.start, region.end, MEMORY_USABLE)
        for region in memory.regions
        if region.start >= layout.MMIO_HOLE_END
    ]
    return [entry for entry in ranges if entry.start < entry.end]


def plan_information(
    image: GuestImage,
    memory: GuestMemory,
    segments: Sequence[LoadSegment],
    command_line: str,
    modules: Sequence[BootModule],
) -> BootInformation:
    """Lay the information out; ImageError if the strings or the modules do not fit. Writes nothing."""
    if len(modules) > MAX_MODULES:
        raise image.error(f"{len(modules)} modules are too many: the list has room for {MAX_MODULES}")
    strings = _Strings(image)
    cmdline = strings.add("command line", guest_command_line(image, command_line))
    loader_name = strings.add("loader name", LOADER_NAME)
    placed = _place_modules(image, memory, segments, modules)
    entries = [
        (address, address + len(module.data), strings.add("module string", module_string(module)))
        for (address, _), module in zip(placed, modules, strict=True)
    ]
    memory_ranges = memory_map(memory)
    page = bytearray(layout.BOOT_STRINGS - layout.BOOT_INFO)
    low_end = min(memory.size, layout.MMIO_HOLE_START)
    _INFORMATION.pack_into(
        page,
        0,
        FLAG_MEMORY | FLAG_COMMAND_LINE | FLAG_MODULES | FLAG_MEMORY_MAP | FLAG_LOADER_NAME,
        layout.LOW_MEMORY_END // layout.KIB,
        max(low_end - layout.HIGH_MEMORY_START, 0) // layout.KIB,
        0,
        cmdline,
        len(entries),
        _MODULES_ADDRESS,
        len(memory_ranges) * _MAP_ENTRY.size,
        _MAP_ADDRESS,
        0,
        0,
        0,
        loader_name,
        0,
    )
    for index, entry in enumerate(memory_ranges):
        offset = _MAP_ADDRESS - layout.BOOT_INFO + index * _MAP_ENTRY.size
        size = _MAP_ENTRY.size - _MAP_ENTRY_SIZE_FIELD
        _MAP_ENTRY.pack_into(page, offset, size, entry.start, entry.end - entry.start, entry.kind)
    for index, (start, end, text) in enumerate(entries):
        _MODULE.pack_into(
            page, _MODULES_ADDRESS - layout.BOOT_INFO + index * _MODULE.size, start, end, text, 0
        )
    return BootInformation(bytes(page), strings.packed(), tuple(placed))


def guest_command_line(image: GuestImage, command_line: str) -> str:
    """The image's name as one word, then what the user appended.

    Kernels drop the first word as the program's name (kvm-unit-tests do), so it must be exactly one.
    """
    name = "_".join(image.name.split()) or "kernel"
    return f"{name} {command_line}" if command_line else name


def module_string(module: BootModule) -> str:
    """The string that goes with a module: its name, then its arguments if there are any."""
    return f"{module.name} {module.arguments}" if module.arguments else module.name


class _Strings:
    """Zero-terminated strings, one after the other, at layout.BOOT_STRINGS."""

    def __init__(self, image: GuestImage) -> None:
        self._image = image
        self._bytes = bytearray()

    def add(self, what: str, text: str) -> int:
        """Append `text`; returns its guest-physical address."""
        try:
            # File names and arguments that are not UTF-8 reach the guest as the bytes that they are.
            encoded = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise self._image.error(
                f"the {what} '{printable(text[:40])}' cannot be encoded as UTF-8"
            ) from error
        if 0 in encoded:
            raise self._image.error(f"the {what} '{printable(text[:40])}' holds a NUL, which would end it")
        address = layout.BOOT_STRINGS + len(self._bytes)
        self._bytes += encoded + b"\0"
        if len(self._bytes) > layout.BOOT_STRINGS_SIZE:
            raise self._image.error(
                f"the {what} is too long: command line and module strings have {layout.BOOT_STRINGS_SIZE} bytes"
                f" together, and {len(self._bytes)} are needed so far",
                hint="shorten --append or the modules' arguments, or put the text into a module",
            )
        return address

    def packed(self) -> bytes:
        """All strings as bytes."""
        return bytes(self._bytes)


def _place_modules(
    image: GuestImage, memory: GuestMemory, segments: Sequence[LoadSegment], modules: Sequence[BootModule]
) -> list[tuple[int, bytes]]:
    """(address, bytes) of each module: on its own pages, above the image and 1 MiB, below the hole.

    Addresses in the structure have 32 bits, so what lies above 4 GiB plays no part.
    """
    placed: list[tuple[int, bytes]] = []
    ends = [segment.end for segment in segments if segment.end <= layout.MMIO_HOLE_START]
    address = _page_aligned(max([layout.HIGH_MEMORY_START, *ends]))
    for module in modules:
        end = address + len(module.data)
        if module.data and not (end <= layout.MMIO_HOLE_START and memory.contains(address, len(module.data))):
            raise image.error(
                f"module '{printable(module.name)}' ({len(module.data)} bytes at {address:#x}) does not fit into the"
                f" guest's memory of {memory.size / layout.MIB:g} MiB",
                hint=memory_hint(end),
            )
        placed.append((address, module.data))
        address = _page_aligned(end)
    return [(address, data) for address, data in placed]


def _page_aligned(address: int) -> int:
    return -(-address // layout.PAGE_SIZE) * layout.PAGE_SIZE
