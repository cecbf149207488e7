"""Firmware tables in memory, found and read as kernels do: by anchor, pointer, length and checksum.

Written from the specifications, apart from the code under test: no offset here comes from `kvmbox.firmware`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

from kvmbox.firmware.all_tables import FirmwareTables, firmware_tables
from kvmbox.firmware.platform import Platform

MIB = 1 << 20
ALL_SERIAL_PORTS = ("COM1", "COM2", "COM3", "COM4", "MMIO")


@dataclass
class MpEntry:
    """One entry of the MP configuration table."""

    kind: int
    data: bytes


class FirmwareMemory:
    """The first MiB of a machine after its firmware tables were written. What nobody wrote is 0xCC."""

    def __init__(self, platform: Platform) -> None:
        self.tables: FirmwareTables = firmware_tables(platform)
        self.bytes = bytearray(b"\xcc" * MIB)
        for address, data in self.tables.writes:
            self.bytes[address : address + len(data)] = data

    def at(self, address: int, size: int) -> bytes:
        """`size` bytes from `address`."""
        return bytes(self.bytes[address : address + size])

    def number(self, address: int, size: int) -> int:
        """A little-endian number."""
        return int.from_bytes(self.at(address, size), "little")

    def find(self, anchor: bytes) -> int:
        """The address of the only entry point with this anchor, where kernels look.

        That is in the first KiB of the EBDA, which the BIOS data area points to, and from 0xE0000 to 1 MiB,
        at multiples of 16.
        """
        ebda = self.number(0x40E, 2) << 4
        places = (*range(ebda, ebda + 1024, 16), *range(0xE0000, MIB, 16))
        found: list[int] = [place for place in places if self.at(place, len(anchor)) == anchor]
        assert len(found) == 1
        return found[0]

    def checked(self, address: int, size: int) -> bytes:
        """`size` bytes, whose sum must be 0."""
        data = self.at(address, size)
        assert sum(data) % 256 == 0, f"wrong checksum: {size} bytes at {address:#x}"
        return data

    def acpi_table(self, address: int) -> bytes:
        """The table with a standard header at `address`."""
        return self.checked(address, self.number(address + 4, 4))

    @cached_property
    def rsdp(self) -> bytes:
        """The RSDP, both of its checksums right."""
        address = self.find(b"RSD PTR ")
        self.checked(address, 20)
        return self.checked(address, self.number(address + 20, 4))

    def _pointed_to(self, root: int, form: str) -> dict[str, bytes]:
        table = self.acpi_table(root)
        tables = [self.acpi_table(address) for (address,) in struct.iter_unpack(form, table[36:])]
        return {data[:4].decode(): data for data in tables} | {table[:4].decode(): table}

    @cached_property
    def acpi(self) -> dict[str, bytes]:
        """All ACPI tables by signature: those of RSDT and XSDT, which must agree, and those of the FADT."""
        by_rsdt = self._pointed_to(struct.unpack_from("<I", self.rsdp, 16)[0], "<I")
        by_xsdt = self._pointed_to(struct.unpack_from("<Q", self.rsdp, 24)[0], "<Q")
        tables = by_rsdt | by_xsdt
        assert set(by_rsdt) - {"RSDT"} == set(by_xsdt) - {"XSDT"} == set(tables) - {"RSDT", "XSDT"}
        facs, dsdt = struct.unpack_from("<II", tables["FACP"], 36)
        tables["DSDT"] = self.acpi_table(dsdt)
        tables["FACS"] = self.at(facs, self.number(facs + 4, 4))
        return tables

    @cached_property
    def madt_entries(self) -> list[bytes]:
        """The entries of the MADT, each with its type and length."""
        table = self.acpi["APIC"]
        entries = []
        position = 44
        while position < len(table):
            entries.append(table[position : position + table[position + 1]])
            position += table[position + 1]
        assert position == len(table)
        return entries

    @cached_property
    def mp_header(self) -> bytes:
        """The MP configuration table, from the floating pointer; both checksums right."""
        pointer = self.find(b"_MP_")
        self.checked(pointer, 16 * self.number(pointer + 8, 1))
        address = self.number(pointer + 4, 4)
        return self.checked(address, self.number(address + 4, 2))

    @cached_property
    def mp_entries(self) -> list[MpEntry]:
        """The entries of the MP configuration table: 20 bytes for a processor, 8 for all others."""
        table = self.mp_header
        entries = []
        position = 44
        for _ in range(int.from_bytes(table[34:36], "little")):
            size = 20 if table[position] == 0 else 8
            entries.append(MpEntry(table[position], table[position : position + size]))
            position += size
        assert position == len(table)
        return entries

    @cached_property
    def smbios(self) -> list[tuple[int, int, bytes, list[str]]]:
        """(type, handle, formatted area, strings) of all SMBIOS structures, and all checksums right."""
        address = self.find(b"_SM_")
        entry = self.checked(address, self.number(address + 5, 1))
        self.checked(address + 16, 15)
        size, table, count = struct.unpack_from("<HIH", entry, 0x16)
        data = self.at(table, size)
        structures = []
        largest = 0
        while data:
            kind, length, handle = struct.unpack_from("<BBH", data)
            end = data.index(b"\0\0", length) + 2
            texts = data[length : end - 2].decode("ascii")
            structures.append((kind, handle, data[:length], texts.split("\0") if texts else []))
            largest = max(largest, end)
            data = data[end:]
        assert len(structures) == count
        assert largest == struct.unpack_from("<H", entry, 8)[0]
        return structures

    def dmidecode_dump(self) -> bytes:
        """What `dmidecode --from-dump` reads: the entry point, and at 32, as it says then, the structures."""
        address = self.find(b"_SM_")
        entry = bytearray(self.at(address, 31))
        size, table = struct.unpack_from("<HI", entry, 0x16)
        struct.pack_into("<I", entry, 0x18, 32)
        entry[0x15] = 0
        entry[0x15] = -sum(entry[16:]) & 0xFF
        entry[4] = 0
        entry[4] = -sum(entry) & 0xFF
        return bytes(entry).ljust(32, b"\0") + self.at(table, size)


def firmware_memory(
    memory_size: int = 128 * MIB,
    *,
    cpus: int = 1,
    serial_ports: tuple[str, ...] = ("COM1",),
    virtio: tuple[tuple[int, int], ...] = (),
    pci: tuple[tuple[int, int], ...] | None = None,
) -> FirmwareMemory:
    """The tables of such a machine."""
    return FirmwareMemory(Platform(memory_size, cpus, serial_ports, virtio=virtio, pci=pci))
