"""The SMBIOS structures: who made the machine, and what processors and memory it has.

The fields are those of DMTF's System Management BIOS Reference Specification 2.8 (DSP0134); section numbers
are its own. No field names the host, so that a guest sees the same machine everywhere: no serial numbers, and
a UUID of zeros, which means that there is none.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.base.layout import ram_ranges
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.table_area import TableArea, checksum

_VERSION: Final = (2, 8)
MANUFACTURER: Final = "kvmbox"
PRODUCT: Final = "kvmbox PC"
FIRMWARE_DATE: Final = "11/26/2026"  # kernels take an absent one for a very old BIOS

# Section 5.2.1: anchor, checksum, length, version, largest structure, revision, reserved; intermediate anchor
# and checksum, length of all structures, their address, their count, BCD revision.
_ENTRY_POINT: Final = struct.Struct("<4sBBBBHB5x5sBHIHB")
_INTERMEDIATE_AT: Final = 16

# Section 7: each structure behind its header of type, length and handle.
_HEADER: Final = struct.Struct("<BBH")
_BIOS: Final = struct.Struct("<BBHBBQBBBBBB")
_SYSTEM: Final = struct.Struct("<BBBB16sBBB")
_CHASSIS: Final = struct.Struct("<BBBBBBBBBIBBBBB")
_PROCESSOR: Final = struct.Struct("<BBBBIIBBHHHBBHHHBBBBBBHH")
_ARRAY: Final = struct.Struct("<BBBIHHQ")
_DEVICE: Final = struct.Struct("<HHHHHBBBBBHHBBBBBIHHHH")
_MAPPED: Final = struct.Struct("<IIHBQQ")
_BOOT: Final = struct.Struct("<6xB")

# Handles, as QEMU numbers them: the type, and a number.
_CHASSIS_HANDLE: Final = 0x0300
_ARRAY_HANDLE: Final = 0x1000
_NO_ERROR_INFORMATION: Final = 0xFFFE
_NO_CACHE: Final = 0xFFFF

_OTHER: Final = 1
_UNKNOWN: Final = 2
_NONE: Final = 3
_SAFE: Final = 3

_CHARACTERISTICS_NOT_SUPPORTED: Final = 1 << 3
_VIRTUAL_MACHINE: Final = 1 << 4
_WAKE_UP_POWER_SWITCH: Final = 6
_CENTRAL_PROCESSOR: Final = 3
_POPULATED_AND_ENABLED: Final = 0x41
_CAPABLE_OF_64_BITS: Final = 1 << 2
_MULTI_CORE: Final = 1 << 3
_SYSTEM_BOARD: Final = 3
_SYSTEM_MEMORY: Final = 3
_FORM_FACTOR_DIMM: Final = 9
_MEMORY_TYPE_RAM: Final = 7
_SEE_EXTENDED_SIZE: Final = 0x7FFF
_SIZE_IN_KIB: Final = 0x8000


class _Structures:
    """The structures of a machine, in order."""

    def __init__(self) -> None:
        self._structures: list[bytes] = []

    def add(self, kind: int, handle: int, fields: bytes = b"", *strings: str) -> None:
        """Append one: its fields refer to `strings` by number, from 1 on, or 0 for none (section 6.1.3)."""
        header = _HEADER.pack(kind, _HEADER.size + len(fields), handle)
        texts = b"".join(text.encode("ascii") + b"\0" for text in strings) or b"\0"
        self._structures.append(header + fields + texts + b"\0")

    def table(self) -> tuple[bytes, int, int]:
        """All structures, their number, and the size of the largest in bytes."""
        return b"".join(self._structures), len(self._structures), max(map(len, self._structures))


def _add_bios(structures: _Structures) -> None:
    """Type 0: a version that does not change with kvmbox's, and a ROM of 64 KiB, the least there can be."""
    fields = _BIOS.pack(
        *(1, 2),
        layout.FIRMWARE_START >> 4,
        3,
        0,
        _CHARACTERISTICS_NOT_SUPPORTED,
        *(0, _VIRTUAL_MACHINE),
        *(1, 0),
        *(0xFF, 0xFF),  # no embedded controller
    )
    structures.add(0, 0x0000, fields, MANUFACTURER, "1.0", FIRMWARE_DATE)


def _add_system(structures: _Structures) -> None:
    fields = _SYSTEM.pack(1, 2, 0, 0, bytes(16), _WAKE_UP_POWER_SWITCH, 0, 0)
    structures.add(1, 0x0100, fields, MANUFACTURER, PRODUCT)


def _add_chassis(structures: _Structures) -> None:
    """Type 3: of no particular kind, its state safe."""
    fields = _CHASSIS.pack(1, _OTHER, 0, 0, 0, _SAFE, _SAFE, _SAFE, _UNKNOWN, 0, 0, 0, 0, 0, 0)
    structures.add(3, _CHASSIS_HANDLE, fields, MANUFACTURER)


def _add_processor(structures: _Structures, platform: Platform) -> None:
    """Type 4, one for a socket: CPUID tells of one package, whose cores are the CPUs.

    Speeds are unknown, caches not described.
    """
    cores = platform.cpus
    characteristics = _CAPABLE_OF_64_BITS | (_MULTI_CORE if cores > 1 else 0)
    fields = _PROCESSOR.pack(
        *(1, _CENTRAL_PROCESSOR, _OTHER, 2),
        *(platform.cpu_signature, platform.cpu_features),
        *(0, 0),
        *(0, 0, 0),  # clock and speeds in MHz
        *(_POPULATED_AND_ENABLED, _OTHER),
        *(_NO_CACHE, _NO_CACHE, _NO_CACHE),
        *(0, 0, 0),
        *(cores, cores, cores),  # cores, enabled ones, threads
        characteristics,
        _OTHER,
    )
    structures.add(4, 0x0400, fields, "CPU 0", MANUFACTURER)


def _add_memory(structures: _Structures, memory_size: int) -> None:
    """Types 16, 17 and 19: one array with one module, which is mapped in one or two ranges."""
    kib, mib = memory_size // layout.KIB, memory_size // layout.MIB
    array = _ARRAY.pack(_SYSTEM_BOARD, _SYSTEM_MEMORY, _NONE, kib, _NO_ERROR_INFORMATION, 1, 0)
    structures.add(16, _ARRAY_HANDLE, array)

    # Whole MiB, or KiB where that is not exact and they can be said in 15 bits (section 7.18.4).
    extended = 0
    if memory_size % layout.MIB and kib < _SIZE_IN_KIB:
        size = _SIZE_IN_KIB | kib
    elif mib < _SEE_EXTENDED_SIZE:
        size = mib
    else:
        size, extended = _SEE_EXTENDED_SIZE, mib
    module = _DEVICE.pack(
        *(_ARRAY_HANDLE, _NO_ERROR_INFORMATION),
        *(0xFFFF, 0xFFFF),  # widths are unknown
        size,
        *(_FORM_FACTOR_DIMM, 0, 1, 0),
        *(_MEMORY_TYPE_RAM, 1 << 1),  # detail: other
        0,  # speed
        *(2, 0, 0, 0, 0),
        extended,
        0,
        *(0, 0, 0),  # voltages
    )
    structures.add(17, 0x1100, module, "DIMM 0", MANUFACTURER)
    for number, (start, length) in enumerate(ram_ranges(memory_size)):
        last = (start + length) // layout.KIB - 1
        mapped = _MAPPED.pack(start // layout.KIB, last, _ARRAY_HANDLE, 1, 0, 0)
        structures.add(19, 0x1300 + number, mapped)


def structure_table(platform: Platform) -> tuple[bytes, int, int]:
    """All structures, their number, and the size of the largest in bytes."""
    structures = _Structures()
    _add_bios(structures)
    _add_system(structures)
    _add_chassis(structures)
    _add_processor(structures, platform)
    _add_memory(structures, platform.memory_size)
    structures.add(32, 0x2000, _BOOT.pack(0))  # no errors detected
    structures.add(127, 0x7F00)
    return structures.table()


def entry_point(address: int, size: int, count: int, largest: int) -> bytes:
    """The 32-bit entry point of structures at guest-physical `address`, with both of its checksums."""
    major, minor = _VERSION
    first = (b"_SM_", 0, _ENTRY_POINT.size, major, minor, largest, 0)
    second = (size, address, count, major << 4 | minor)
    intermediate = checksum(_ENTRY_POINT.pack(*first, b"_DMI_", 0, *second)[_INTERMEDIATE_AT:])
    whole = bytearray(_ENTRY_POINT.pack(*first, b"_DMI_", intermediate, *second))
    whole[4] = checksum(whole)
    return bytes(whole)


def place(area: TableArea, platform: Platform) -> None:
    """Put the entry point and the structures into `area`."""
    point = area.reserve(_ENTRY_POINT.size)
    data, count, largest = structure_table(platform)
    area.put(point, entry_point(area.add(data), len(data), count, largest))
