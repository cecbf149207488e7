"""The ACPI tables, read with the offsets of the ACPI Specification (6.5, chapter 5)."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from tests.support.firmware_memory import FirmwareMemory, firmware_memory


@pytest.fixture(scope="module")
def memory() -> FirmwareMemory:
    return firmware_memory(cpus=4)


def test_rsdp_is_of_revision_2_at_the_start_of_the_area(memory: FirmwareMemory) -> None:
    assert memory.find(b"RSD PTR ") == memory.tables.rsdp == 0xF0000
    assert memory.rsdp[15] == 2
    assert len(memory.rsdp) == 36


def test_tables_are_these_and_have_these_revisions(memory: FirmwareMemory) -> None:
    revisions = {name: table[8] for name, table in memory.acpi.items() if name != "FACS"}
    assert revisions == {"RSDT": 1, "XSDT": 1, "FACP": 4, "APIC": 3, "HPET": 1, "DSDT": 2}


def test_fadt_has_the_power_management_registers(memory: FirmwareMemory) -> None:
    fadt = memory.acpi["FACP"]

    assert len(fadt) == 244
    assert struct.unpack_from("<H", fadt, 46) == (9,)  # SCI_INT
    assert struct.unpack_from("<I", fadt, 48) == (0,)  # SMI_CMD
    event, event_b, control, control_b, pm2, timer, gpe0, gpe1 = struct.unpack_from("<8I", fadt, 56)
    assert (event, control, timer) == (0x600, 0x604, 0x608)
    assert {event_b, control_b, pm2, gpe0, gpe1} == {0}
    assert list(fadt[88:94]) == [4, 2, 0, 4, 0, 0]  # lengths
    assert fadt[108] == 0x32  # CENTURY
    assert struct.unpack_from("<BBBBQ", fadt, 148) == (1, 32, 0, 2, 0x600)  # X_PM1a_EVT_BLK
    assert struct.unpack_from("<BBBBQ", fadt, 172) == (1, 16, 0, 2, 0x604)  # X_PM1a_CNT_BLK
    assert struct.unpack_from("<BBBBQ", fadt, 208) == (1, 32, 0, 3, 0x608)  # X_PM_TMR_BLK


def test_fadt_has_the_reset_register(memory: FirmwareMemory) -> None:
    fadt = memory.acpi["FACP"]

    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert flags & 1 << 10  # RESET_REG_SUP
    assert struct.unpack_from("<BBBBQB", fadt, 116) == (1, 8, 0, 1, 0xCF9, 6)


def test_fadt_says_what_hardware_there_is(memory: FirmwareMemory) -> None:
    fadt = memory.acpi["FACP"]

    assert struct.unpack_from("<H", fadt, 109) == (0b111,)  # legacy devices, 8042, no VGA
    flags = struct.unpack_from("<I", fadt, 112)[0]
    assert not flags & 1 << 8  # the PM timer has 24 bits
    assert not flags & 1 << 20  # not hardware-reduced
    assert flags & 1 << 4  # no fixed power button
    assert flags & 1 << 5  # no fixed sleep button


def test_facs_is_where_resume_looks_for_it_aligned_and_unowned(memory: FirmwareMemory) -> None:
    facs = memory.acpi["FACS"]

    address = struct.unpack_from("<I", memory.acpi["FACP"], 36)[0]
    assert address == layout.ACPI_FACS
    assert address % 64 == 0
    assert struct.unpack_from("<Q", memory.acpi["FACP"], 132) == (0,)  # X_FIRMWARE_CTRL
    assert facs[:4] == b"FACS"
    assert len(facs) == 64
    assert facs[8:32] == bytes(24)  # waking vectors, lock, flags


def test_dsdt_is_at_one_address_in_both_fields(memory: FirmwareMemory) -> None:
    fadt = memory.acpi["FACP"]
    assert struct.unpack_from("<I", fadt, 40)[0] == struct.unpack_from("<Q", fadt, 140)[0]


def test_madt_has_a_local_apic_for_each_cpu_and_one_io_apic(memory: FirmwareMemory) -> None:
    madt = memory.acpi["APIC"]
    entries = memory.madt_entries

    assert struct.unpack_from("<II", madt, 36) == (0xFEE00000, 1)  # address, PCAT_COMPAT
    cpus = [struct.unpack("<BBBBI", entry) for entry in entries if entry[0] == 0]
    assert cpus == [(0, 8, number, number, 1) for number in range(4)]
    assert [struct.unpack("<BBBBII", entry) for entry in entries if entry[0] == 1] == [
        (1, 12, 0, 0, 0xFEC00000, 0)
    ]


def test_madt_overrides_irq_0_and_the_level_triggered_ones(memory: FirmwareMemory) -> None:
    overrides = [struct.unpack("<BBBBIH", entry) for entry in memory.madt_entries if entry[0] == 2]

    assert overrides == [
        (2, 10, 0, 0, 2, 0),
        *((2, 10, 0, irq, irq, 0b1101) for irq in (5, 9, 10, 11)),
    ]


def test_madt_wires_nmi_to_lint1_of_all_cpus(memory: FirmwareMemory) -> None:
    nmis = [struct.unpack("<BBBHB", entry) for entry in memory.madt_entries if entry[0] == 4]
    assert nmis == [(4, 6, 0xFF, 0, 1)]


def test_hpet_table_has_the_block_at_its_address(memory: FirmwareMemory) -> None:
    hpet = memory.acpi["HPET"]

    block = struct.unpack_from("<I", hpet, 36)[0]
    assert block >> 16 == 0x8086  # vendor
    assert block & 1 << 15  # legacy replacement
    assert block & 1 << 13  # 64-bit counter
    assert block >> 8 & 0x1F == 2  # the number of the last timer
    assert struct.unpack_from("<BBBBQB", hpet, 40) == (0, 0, 0, 0, 0xFED00000, 0)


def test_s5_is_found_by_those_who_search_the_dsdt_for_its_bytes(memory: FirmwareMemory) -> None:
    """Small kernels have no interpreter: they know how the package of constants looks."""
    dsdt = memory.acpi["DSDT"]

    assert dsdt.count(b"_S5_") == 1
    at = dsdt.index(b"_S5_")
    assert dsdt[at - 1] == 0x08
    assert dsdt[at + 4 : at + 11] == bytes.fromhex("12 06 04 00 00 00 00")


def test_s3_has_sleep_type_1(memory: FirmwareMemory) -> None:
    assert b"\x08_S3_\x12\x06\x04\x01\x01\x00\x00" in memory.acpi["DSDT"]


@pytest.mark.parametrize(
    "hardware_id",
    [
        b"\x08_HID\x0dACPI0007\0",  # processors
        b"\x08_HID\x0c\x41\xd0\x05\x01",  # PNP0501: UARTs
        b"\x08_HID\x0c\x41\xd0\x03\x03",  # PNP0303: keyboard controller
        b"\x08_HID\x0c\x41\xd0\x01\x00",  # PNP0100: timer
        b"\x08_HID\x0c\x41\xd0\x0b\x00",  # PNP0B00: real-time clock
        b"\x08_HID\x0c\x41\xd0\x01\x03",  # PNP0103: HPET
        b"\x08_HID\x0dQEMU0001\0",  # pvpanic
        b"\x08_HID\x0dQEMU0002\0",  # fw_cfg
    ],
)
def test_dsdt_has_a_device_for_what_cannot_be_found_otherwise(
    memory: FirmwareMemory, hardware_id: bytes
) -> None:
    assert memory.acpi["DSDT"].count(hardware_id) == (4 if b"ACPI0007" in hardware_id else 1)


def test_dsdt_has_only_the_serial_ports_that_are_there() -> None:
    def ports(names: tuple[str, ...]) -> list[bytes]:
        dsdt = firmware_memory(serial_ports=names).acpi["DSDT"]
        return [name for name in (b"COM1", b"COM2", b"COM3", b"COM4", b"COM5") if name in dsdt]

    assert ports(()) == []
    assert ports(("COM1", "COM3")) == [b"COM1", b"COM3"]
    assert ports(("COM2", "MMIO")) == [b"COM2", b"COM5"]


def test_dsdt_has_only_the_virtio_devices_that_are_there() -> None:
    assert b"LNRO0005" not in firmware_memory().acpi["DSDT"]

    dsdt = firmware_memory(virtio=((0xD000_1000, 10), (0xD000_1200, 21))).acpi["DSDT"]
    assert dsdt.count(b"\x0dLNRO0005\0") == 2
    first, second = dsdt.index(b"VR00"), dsdt.index(b"VR01")
    # Memory32Fixed, and Interrupt: of a consumer, level, active high, one number (6.4.3.4, 6.4.3.6).
    registers = b"\x86\x09\x00\x01\x00\x10\x00\xd0\x00\x02\x00\x00\x89\x06\x00\x01\x01\x0a\x00\x00\x00"
    assert first < dsdt.index(registers) < second
    assert b"\x89\x06\x00\x01\x01\x15\x00\x00\x00" in dsdt[second:]


def test_dsdt_has_a_host_bridge_with_windows_and_routes_where_there_is_pci() -> None:
    assert b"PCI0" not in firmware_memory().acpi["DSDT"]
    dsdt = firmware_memory(pci=((3, 11), (5, 10))).acpi["DSDT"]
    assert dsdt.count(b"PCI0") == 1
    # Package () {device << 16 | any function, INTA, no source, the line}
    for number, line in ((3, 11), (5, 10)):
        route = b"\x0c" + struct.pack("<I", number << 16 | 0xFFFF) + b"\x00\x00\x0a" + bytes((line,))
        assert dsdt.count(route) == 1
    assert struct.pack("<5I", 0, 0xE000_0000, 0xFEBF_FFFF, 0, 0x1EC0_0000) in dsdt
    assert struct.pack("<5H", 0, 0, 0x0CF7, 0, 0x0CF8) in dsdt
