"""The MP tables, read with the offsets of the MultiProcessor Specification 1.4, chapter 4."""

from __future__ import annotations

import struct

import pytest

from tests.support.firmware_memory import FirmwareMemory, firmware_memory

PROCESSOR, BUS, IO_APIC, INTERRUPT, LOCAL_INTERRUPT = range(5)
INT, NMI, SMI, EXT_INT = range(4)


@pytest.fixture(scope="module")
def memory() -> FirmwareMemory:
    return firmware_memory(cpus=3)


def entries(memory: FirmwareMemory, kind: int) -> list[bytes]:
    return [entry.data for entry in memory.mp_entries if entry.kind == kind]


def interrupts(memory: FirmwareMemory, kind: int = INTERRUPT) -> list[tuple[int, ...]]:
    """(interrupt type, flags, bus, IRQ, APIC, pin)."""
    return [struct.unpack("<xBHBBBB", data) for data in entries(memory, kind)]


def test_pointer_is_of_version_1_4_and_has_no_default_configuration_or_imcr(memory: FirmwareMemory) -> None:
    pointer = memory.at(memory.find(b"_MP_"), 16)
    assert (pointer[8], pointer[9], pointer[11:16]) == (1, 4, bytes(5))


def test_table_has_signature_version_and_local_apic_address(memory: FirmwareMemory) -> None:
    header = memory.mp_header
    assert header[:4] == b"PCMP"
    assert header[6] == 4
    assert struct.unpack_from("<I", header, 36) == (0xFEE00000,)


def test_entries_ascend_by_type(memory: FirmwareMemory) -> None:
    kinds = [entry.kind for entry in memory.mp_entries]
    assert kinds == sorted(kinds)
    assert set(kinds) == {PROCESSOR, BUS, IO_APIC, INTERRUPT, LOCAL_INTERRUPT}


def test_every_processor_is_enabled_and_the_first_boots(memory: FirmwareMemory) -> None:
    found = [struct.unpack("<BBBBII8x", data) for data in entries(memory, PROCESSOR)]
    assert [(apic, flags) for _, apic, _, flags, _, _ in found] == [(0, 3), (1, 1), (2, 1)]
    assert {(version, signature, features) for *_, version, _, signature, features in found} == {
        (0x14, 0x600, 0x301)
    }


def test_bus_is_isa_and_the_io_apic_has_the_id_of_its_register(memory: FirmwareMemory) -> None:
    assert entries(memory, BUS) == [b"\1\0ISA   "]
    assert [struct.unpack("<BBBBI", data) for data in entries(memory, IO_APIC)] == [
        (IO_APIC, 0, 0x11, 1, 0xFEC00000)
    ]


def test_every_isa_interrupt_reaches_one_pin_and_irq_0_reaches_pin_2(memory: FirmwareMemory) -> None:
    found = interrupts(memory)

    assert {one[0] for one in found} == {INT}
    assert {one[4] for one in found} == {0}
    pins = {irq: pin for _, _, _, irq, _, pin in found}
    assert pins == {irq: irq or 2 for irq in range(16) if irq != 2}
    assert len(found) == 15


def test_local_pins_have_the_8259_and_nmi(memory: FirmwareMemory) -> None:
    assert interrupts(memory, LOCAL_INTERRUPT) == [(EXT_INT, 0, 0, 0, 0xFF, 0), (NMI, 0, 0, 0, 0xFF, 1)]


def test_interrupts_are_those_of_the_madt(memory: FirmwareMemory) -> None:
    madt = {irq: (irq, 0) for irq in range(16) if irq != 2}
    for entry in memory.madt_entries:
        if entry[0] == 2:
            irq, gsi, flags = struct.unpack("<xxxBIH", entry)
            madt[irq] = (gsi, flags)

    assert {irq: (pin, flags) for _, flags, _, irq, _, pin in interrupts(memory)} == madt


def test_pci_is_bus_0_where_it_is_and_its_interrupts_are_levels() -> None:
    memory = firmware_memory(pci=((3, 11), (5, 10)))
    assert entries(memory, BUS) == [b"\1\0PCI   ", b"\1\1ISA   "]
    found = interrupts(memory)
    assert [one for one in found if one[2] == 0] == [(INT, 13, 0, 3 << 2, 0, 11), (INT, 13, 0, 5 << 2, 0, 10)]
    assert len([one for one in found if one[2] == 1]) == 15
    assert {one[2] for one in interrupts(memory, LOCAL_INTERRUPT)} == {1}
