"""All tables of any machine: in their area, apart from each other, found, and with right checksums."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmbox.base import layout
from kvmbox.firmware.all_tables import NO_TABLES, USUAL, firmware_tables, make_tables
from kvmbox.firmware.platform import Platform
from kvmbox.firmware.table_area import TableArea
from kvmbox.run.api.machine import Machine
from kvmbox.run.machine.boot_source import platform_of
from tests.support.firmware_memory import ALL_SERIAL_PORTS, FirmwareMemory

MOST_CPUS = 32

platforms = st.builds(
    Platform,
    memory_size=st.integers(layout.MIN_MEMORY // layout.PAGE_SIZE, layout.MAX_MEMORY // layout.PAGE_SIZE).map(
        lambda pages: pages * layout.PAGE_SIZE
    ),
    cpus=st.integers(1, MOST_CPUS),
    serial_ports=st.lists(st.sampled_from(ALL_SERIAL_PORTS), unique=True).map(tuple),
    cpu_signature=st.integers(0, (1 << 32) - 1),
    cpu_features=st.integers(0, (1 << 32) - 1),
)


@given(platforms)
def test_tables_of_any_machine_are_found_and_their_checksums_are_right(platform: Platform) -> None:
    memory = FirmwareMemory(platform)

    assert set(memory.acpi) == {"RSDT", "XSDT", "FACP", "FACS", "APIC", "HPET", "DSDT"}
    assert sum(entry.kind == 0 for entry in memory.mp_entries) == platform.cpus
    assert memory.smbios[-1][0] == 127


@given(platforms)
def test_tables_of_any_machine_stay_in_their_areas_and_apart(platform: Platform) -> None:
    writes = sorted(firmware_tables(platform).writes)

    assert all(lower + len(data) <= upper for (lower, data), (upper, _) in pairwise(writes)), (
        "two tables overlap"
    )
    allowed = [
        (layout.BIOS_DATA_AREA, layout.BIOS_DATA_AREA + layout.BIOS_DATA_AREA_SIZE),
        (layout.EBDA, layout.LOW_MEMORY_END),
        (layout.FIRMWARE_TABLES, layout.FIRMWARE_TABLES_END),
    ]
    for address, data in writes:
        assert any(start <= address and address + len(data) <= end for start, end in allowed)


def test_tables_that_are_shipped_are_those_of_a_machine_without_options() -> None:
    assert firmware_tables(USUAL) == make_tables(USUAL), "run tools/make_tables.py"


def test_machine_without_options_has_the_tables_that_are_shipped() -> None:
    assert platform_of(Machine("guest.elf", console="stdio").config) == USUAL


@given(platforms)
def test_tables_depend_on_the_platform_alone(platform: Platform) -> None:
    assert firmware_tables(platform) == firmware_tables(Platform(**platform.as_dict()))


@pytest.mark.parametrize("size", [0, 4096, layout.MIN_MEMORY - layout.PAGE_SIZE])
def test_machine_with_less_than_1_mib_has_no_tables(size: int) -> None:
    assert firmware_tables(Platform(size)) == NO_TABLES
    assert NO_TABLES.rsdp == 0
    assert NO_TABLES.writes == ()


def test_largest_machine_leaves_most_of_the_area_free() -> None:
    largest = firmware_tables(Platform(layout.MAX_MEMORY, MOST_CPUS, ALL_SERIAL_PORTS))
    end = max(address + len(data) for address, data in largest.writes)
    assert end - layout.FIRMWARE_TABLES < (layout.FIRMWARE_TABLES_END - layout.FIRMWARE_TABLES) // 4


def test_area_that_is_full_refuses_more() -> None:
    area = TableArea()
    area.reserve(layout.FIRMWARE_TABLES_END - layout.FIRMWARE_TABLES - 16)
    assert area.reserve(16) == layout.FIRMWARE_TABLES_END - 16
    with pytest.raises(ValueError, match="do not fit"):
        area.add(b"x")
