"""The tables of Intel's MultiProcessor Specification 1.4: CPUs and interrupts, for kernels without ACPI.

Section numbers are those of the specification. The board is in virtual wire mode (section 3.6.2.2) without an
IMCR: the 8259s reach the boot processor through LINT0.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.firmware import interrupt_wiring
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.table_area import TableArea, checksum

_SPECIFICATION: Final = 4  # 1.4
OEM_ID: Final = b"KVMBOX  "
PRODUCT_ID: Final = b"PC          "

# Section 4.1: signature, configuration table, length in 16 bytes, revision, checksum, feature bytes 1 to 5.
_POINTER: Final = struct.Struct("<4sIBBB5x")

# Section 4.2: signature, length, revision, checksum, OEM and product id, OEM table and its size, entries,
# local APICs, length and checksum of the extended table, reserved.
_HEADER: Final = struct.Struct("<4sHBB8s12sIHHIHBx")
_HEADER_CHECKSUM_AT: Final = 7

# Section 4.3: the first byte is the type; types must ascend.
_PROCESSOR: Final = struct.Struct("<BBBBII8x")  # 0: APIC id, APIC version, flags, signature, features
_BUS: Final = struct.Struct("<BB6s")  # 1: bus id, type
_IO_APIC: Final = struct.Struct("<BBBBI")  # 2: id, version, flags, address
_INTERRUPT: Final = struct.Struct("<BBHBBBB")  # 3 and 4: type, flags, bus, its IRQ; APIC id and pin

_APIC_VERSION: Final = 0x14  # of KVM's local APIC
_IO_APIC_VERSION: Final = 0x11  # of KVM's I/O APIC
_ENABLED: Final = 1 << 0
_BOOT_PROCESSOR: Final = 1 << 1

_PCI_BUS: Final = 0  # its number on the bus, too: sections 4.3.2 and D.3
_IO_INTERRUPT: Final = 3
_LOCAL_INTERRUPT: Final = 4
_INT: Final = 0
_NMI: Final = 1
_EXT_INT: Final = 3
_LINT0: Final = 0


def _entries(platform: Platform) -> list[bytes]:
    io_apic = interrupt_wiring.IO_APIC_ID
    entries = [
        _PROCESSOR.pack(
            0,
            number,
            _APIC_VERSION,
            _ENABLED | (_BOOT_PROCESSOR if number == 0 else 0),
            platform.cpu_signature,
            platform.cpu_features,
        )
        for number in range(platform.cpus)
    ]
    isa_bus = 0
    if platform.pci is not None:
        entries.append(_BUS.pack(1, _PCI_BUS, b"PCI   "))
        isa_bus = 1
    entries.append(_BUS.pack(1, isa_bus, b"ISA   "))
    entries.append(_IO_APIC.pack(2, io_apic, _IO_APIC_VERSION, _ENABLED, layout.IO_APIC_BASE))
    entries += [
        _INTERRUPT.pack(
            _IO_INTERRUPT, _INT, interrupt_wiring.flags(irq), isa_bus, irq, io_apic, interrupt_wiring.pin(irq)
        )
        for irq in range(interrupt_wiring.ISA_IRQS)
        if irq != interrupt_wiring.CASCADE_IRQ
    ]
    entries += [
        _INTERRUPT.pack(
            *(
                _IO_INTERRUPT,
                _INT,
                interrupt_wiring.flags(line),
                _PCI_BUS,
                number << 2,
                io_apic,
                interrupt_wiring.pin(line),
            )
        )
        for number, line in platform.pci or ()
    ]
    entries += [
        _INTERRUPT.pack(
            _LOCAL_INTERRUPT,
            kind,
            interrupt_wiring.CONFORMS,
            isa_bus,
            0,
            interrupt_wiring.ALL_LOCAL_APICS,
            lint,
        )
        for kind, lint in ((_EXT_INT, _LINT0), (_NMI, interrupt_wiring.NMI_PIN))
    ]
    return entries


def configuration_table(platform: Platform) -> bytes:
    """The MP configuration table."""
    entries = _entries(platform)
    body = b"".join(entries)
    header = _HEADER.pack(
        b"PCMP",
        _HEADER.size + len(body),
        _SPECIFICATION,
        0,
        OEM_ID,
        PRODUCT_ID,
        *(0, 0),  # no OEM table
        len(entries),
        layout.LOCAL_APIC_BASE,
        *(0, 0),  # no extended table
    )
    data = bytearray(header + body)
    data[_HEADER_CHECKSUM_AT] = checksum(data)
    return bytes(data)


def floating_pointer(configuration: int) -> bytes:
    """The MP floating pointer structure: the configuration table is at `configuration`, there is no IMCR."""
    fields = (b"_MP_", configuration, _POINTER.size // 16, _SPECIFICATION)
    return _POINTER.pack(*fields, checksum(_POINTER.pack(*fields, 0)))


def place(area: TableArea, platform: Platform) -> None:
    """Put the pointer and the table into `area`."""
    pointer = area.reserve(_POINTER.size)
    area.put(pointer, floating_pointer(area.add(configuration_table(platform))))
