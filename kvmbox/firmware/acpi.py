"""The ACPI tables: RSDP, RSDT, XSDT, FADT, FACS, MADT, HPET and the DSDT's frame.

Each `*_table` function gives one table, whole and with its checksum. `place` puts all of them into an area.
The fields are those of the ACPI Specification 6.5, chapter 5, in the revisions that ACPI 4.0 has: every
operating system that knows ACPI 2.0 or later reads them.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.firmware import interrupt_wiring
from kvmbox.firmware.dsdt import definition_block
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.table_area import TableArea, checksum

OEM_ID: Final = b"KVMBOX"
OEM_TABLE_ID: Final = b"KVMBOXPC"
CREATOR_ID: Final = b"KVMB"

# signature, length, revision, checksum, OEM id, OEM table id, OEM revision, creator id, creator revision
_HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
_CHECKSUM_AT: Final = 9

# signature, checksum of these 20 bytes, OEM id, revision, RSDT; length, XSDT, checksum of all, reserved
_RSDP_1: Final = struct.Struct("<8sB6sBI")
_RSDP: Final = struct.Struct("<8sB6sBIIQB3x")
_RSDP_REVISION: Final = 2

# Generic address structure (section 5.2.3.2): space, bit width, bit offset, access size, address.
_ADDRESS: Final = struct.Struct("<BBBBQ")
_SYSTEM_MEMORY: Final = 0
_SYSTEM_IO: Final = 1
_ACCESS_SIZES: Final = {1: 1, 2: 2, 4: 3}
"""Bytes of an access → its code."""

# FADT: what follows the header up to the generic addresses (section 5.2.9).
_FADT_FIXED: Final = struct.Struct("<IIBBHIBBBB8I8BHHHHBBBBBHxI")
_FADT_REVISION: Final = 4
_WBINVD: Final = 1 << 0
_PROC_C1: Final = 1 << 2
_PWR_BUTTON: Final = 1 << 4  # set: not in the fixed registers
_SLP_BUTTON: Final = 1 << 5  # set: not in the fixed registers
_RESET_REG_SUP: Final = 1 << 10
_LEGACY_DEVICES: Final = 1 << 0
_HAS_8042: Final = 1 << 1
_VGA_NOT_PRESENT: Final = 1 << 2
_NO_C2: Final = 101  # µs: above 100, there is no C2
_NO_C3: Final = 1001  # µs: above 1000, there is no C3
CMOS_CENTURY: Final = 0x32
RESET_VALUE: Final = 0x06

# FACS: signature, length, hardware signature, waking vector, global lock, flags, 64-bit vector, version.
_FACS: Final = struct.Struct("<4sIIIIIQB31x")
_FACS_VERSION: Final = 1
_FACS_ALIGNMENT: Final = 64

# MADT (section 5.2.12): types of its entries, each with its length behind it.
_MADT_REVISION: Final = 3
_PCAT_COMPAT: Final = 1
_MADT_LOCAL_APIC: Final = struct.Struct("<BBBBI")  # type 0: processor's _UID, APIC id, flags
_MADT_IO_APIC: Final = struct.Struct("<BBBBII")  # type 1: id, reserved, address, first GSI
_MADT_OVERRIDE: Final = struct.Struct("<BBBBIH")  # type 2: bus 0 (ISA), IRQ, GSI, flags
_MADT_LOCAL_NMI: Final = struct.Struct("<BBBHB")  # type 4: processor's _UID, flags, LINT
_ENABLED: Final = 1

# HPET (IA-PC HPET Specification 1.0a, section 3.2.4): block id, address, number, minimum tick, protection.
_HPET: Final = struct.Struct("<I12sBHB")
_HPET_REVISION: Final = 1

_DSDT_REVISION: Final = 2  # integers of AML have 64 bits


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with the standard header (section 5.2.6)."""
    length = _HEADER.size + len(body)
    header = _HEADER.pack(signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    data = bytearray(header + body)
    data[_CHECKSUM_AT] = checksum(data)
    return bytes(data)


def _io_address(port: int, size: int, access: int) -> bytes:
    return _ADDRESS.pack(_SYSTEM_IO, 8 * size, 0, _ACCESS_SIZES[access], port)


def rsdp_table(rsdt: int, xsdt: int) -> bytes:
    """The Root System Description Pointer (section 5.2.5), which is no table but where all begins."""
    signature = b"RSD PTR "
    first = _RSDP_1.pack(signature, 0, OEM_ID, _RSDP_REVISION, rsdt)
    sum_1 = checksum(first)
    fields = (signature, sum_1, OEM_ID, _RSDP_REVISION, rsdt, _RSDP.size, xsdt)
    return _RSDP.pack(*fields, checksum(_RSDP.pack(*fields, 0)))


def rsdt_table(tables: tuple[int, ...]) -> bytes:
    """The Root System Description Table: 32-bit addresses."""
    return table(b"RSDT", 1, struct.pack(f"<{len(tables)}I", *tables))


def xsdt_table(tables: tuple[int, ...]) -> bytes:
    """The Extended System Description Table: the same addresses in 64 bits."""
    return table(b"XSDT", 1, struct.pack(f"<{len(tables)}Q", *tables))


def facs_table() -> bytes:
    """The Firmware ACPI Control Structure (section 5.2.10): no checksum, the guest writes to it."""
    return _FACS.pack(b"FACS", _FACS.size, 0, 0, 0, 0, 0, _FACS_VERSION)


def fadt_table(facs: int, dsdt: int) -> bytes:
    """The Fixed ACPI Description Table.

    There is no SMI command port: the machine is in ACPI mode from the start, and SCI_EN reads as set. No
    fixed buttons, no GPE block, no C states beyond C1, no PM2 or duty cycle.
    """
    fixed = _FADT_FIXED.pack(
        facs,
        dsdt,
        0,  # reserved
        0,  # preferred profile: unspecified
        layout.SCI_IRQ,
        0,  # SMI_CMD
        *(0, 0, 0, 0),  # ACPI_ENABLE, ACPI_DISABLE, S4BIOS_REQ, PSTATE_CNT
        *(layout.PM1_EVENT_PORT, 0, layout.PM1_CONTROL_PORT, 0),  # a and b of each
        *(0, layout.PM_TIMER_PORT, 0, 0),  # PM2 control, timer, GPE 0 and 1
        *(layout.PM1_EVENT_PORT_COUNT, layout.PM1_CONTROL_PORT_COUNT, 0, layout.PM_TIMER_PORT_COUNT),
        *(0, 0, 0, 0),  # GPE 0 and 1 lengths, GPE 1 base, CST_CNT
        *(_NO_C2, _NO_C3),
        *(0, 0),  # FLUSH_SIZE, FLUSH_STRIDE: WBINVD works
        *(0, 0),  # duty cycle
        *(0, 0),  # the RTC has no day or month alarm
        CMOS_CENTURY,
        _LEGACY_DEVICES | _HAS_8042 | _VGA_NOT_PRESENT,
        _WBINVD | _PROC_C1 | _PWR_BUTTON | _SLP_BUTTON | _RESET_REG_SUP,
    )
    reset = _io_address(layout.RESET_CONTROL_PORT, 1, access=1) + struct.pack("<B3x", RESET_VALUE)
    absent = bytes(_ADDRESS.size)
    # X_FIRMWARE_CTRL is 0: only one of FIRMWARE_CTRL and itself may be given. X_DSDT repeats DSDT.
    addresses = (
        struct.pack("<QQ", 0, dsdt),
        _io_address(layout.PM1_EVENT_PORT, layout.PM1_EVENT_PORT_COUNT, access=2),
        absent,
        _io_address(layout.PM1_CONTROL_PORT, layout.PM1_CONTROL_PORT_COUNT, access=2),
        absent,
        absent,
        _io_address(layout.PM_TIMER_PORT, layout.PM_TIMER_PORT_COUNT, access=4),
        absent,
        absent,
    )
    return table(b"FACP", _FADT_REVISION, fixed + reset + b"".join(addresses))


def madt_table(platform: Platform) -> bytes:
    """The Multiple APIC Description Table."""
    apic, io_apic, override, nmi = _MADT_LOCAL_APIC, _MADT_IO_APIC, _MADT_OVERRIDE, _MADT_LOCAL_NMI
    entries = [apic.pack(0, apic.size, number, number, _ENABLED) for number in range(platform.cpus)]
    entries.append(io_apic.pack(1, io_apic.size, interrupt_wiring.IO_APIC_ID, 0, layout.IO_APIC_BASE, 0))
    entries += [
        override.pack(2, override.size, 0, irq, interrupt_wiring.pin(irq), interrupt_wiring.flags(irq))
        for irq in (interrupt_wiring.TIMER_IRQ, *interrupt_wiring.LEVEL_IRQS)
    ]
    entries.append(
        nmi.pack(
            4, nmi.size, interrupt_wiring.ALL_LOCAL_APICS, interrupt_wiring.CONFORMS, interrupt_wiring.NMI_PIN
        )
    )
    body = struct.pack("<II", layout.LOCAL_APIC_BASE, _PCAT_COMPAT) + b"".join(entries)
    return table(b"APIC", _MADT_REVISION, body)


def hpet_table() -> bytes:
    """The HPET Description Table: block 0, no minimum tick, no page protection."""
    address = _ADDRESS.pack(_SYSTEM_MEMORY, 0, 0, 0, layout.HPET_BASE)
    return table(b"HPET", _HPET_REVISION, _HPET.pack(layout.HPET_BLOCK_ID, address, 0, 0, 0))


def dsdt_table(platform: Platform) -> bytes:
    """The Differentiated System Description Table."""
    return table(b"DSDT", _DSDT_REVISION, definition_block(platform))


def place(area: TableArea, platform: Platform) -> int:
    """Put all tables into `area`, which is empty, RSDP and FACS first; returns the address of the RSDP."""
    rsdp = area.reserve(_RSDP.size)
    facs = area.add(facs_table(), _FACS_ALIGNMENT)
    if facs != layout.ACPI_FACS:
        raise ValueError(f"the FACS is at {facs:#x}, and its place is {layout.ACPI_FACS:#x}")
    dsdt = area.add(dsdt_table(platform))
    tables = (
        area.add(fadt_table(facs, dsdt)),
        area.add(madt_table(platform)),
        area.add(hpet_table()),
    )
    area.put(rsdp, rsdp_table(area.add(rsdt_table(tables)), area.add(xsdt_table(tables))))
    return rsdp
