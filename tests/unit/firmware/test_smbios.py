"""The SMBIOS structures, read with the offsets of DSP0134 2.8."""

from __future__ import annotations

import struct

import pytest

from kvmbox.base import layout
from tests.support.firmware_memory import MIB, FirmwareMemory, firmware_memory

GIB = 1 << 30
TEXT_FIELDS = {
    0: (4, 5, 8),
    1: (4, 5, 6, 7, 0x19, 0x1A),
    3: (4, 6, 7, 8),
    4: (4, 7, 16, 32, 33, 34),
    17: (16, 17, 23, 24, 25, 26),
}
"""Offsets of the fields that hold the number of a string."""


def structures(memory: FirmwareMemory, kind: int) -> list[bytes]:
    return [data for found, _, data, _ in memory.smbios if found == kind]


def test_structures_are_these_in_order_with_handles_of_their_own() -> None:
    memory = firmware_memory()

    assert [kind for kind, *_ in memory.smbios] == [0, 1, 3, 4, 16, 17, 19, 32, 127]
    handles = [handle for _, handle, *_ in memory.smbios]
    assert len(set(handles)) == len(handles)


def test_structures_have_the_lengths_of_2_8() -> None:
    lengths = {kind: len(data) for kind, _, data, _ in firmware_memory().smbios}
    assert lengths == {0: 24, 1: 27, 3: 22, 4: 42, 16: 23, 17: 40, 19: 31, 32: 11, 127: 4}


def test_entry_point_says_2_8() -> None:
    memory = firmware_memory()
    entry = memory.at(memory.find(b"_SM_"), 31)
    assert (entry[6], entry[7], entry[30], entry[16:21]) == (2, 8, 0x28, b"_DMI_")


def test_strings_that_fields_name_exist_and_no_other() -> None:
    for kind, _, data, texts in firmware_memory().smbios:
        named = {data[offset] for offset in TEXT_FIELDS.get(kind, ())} - {0}
        assert named == set(range(1, len(texts) + 1)), kind


def test_bios_says_that_the_machine_is_virtual() -> None:
    (bios,) = structures(firmware_memory(), 0)
    assert bios[19] == 1 << 4


def test_processor_is_one_package_with_the_cpus_as_cores() -> None:
    (processor,) = structures(firmware_memory(cpus=5), 4)
    assert list(processor[0x23:0x26]) == [5, 5, 5]
    assert processor[0x18] == 0x41


@pytest.mark.parametrize(
    ("memory_size", "size", "extended"),
    [
        (MIB, 1, 0),
        (MIB + 4096, 0x8000 | 1028, 0),
        (32 * MIB - 4096, 0x8000 | 0x7FFC, 0),
        (32 * MIB + 4096, 32, 0),  # KiB have 15 bits: rounded down to whole MiB
        (5 * GIB, 5120, 0),
        (32 * GIB - 2 * MIB, 0x7FFE, 0),
        (32 * GIB - MIB, 0x7FFF, 0x7FFF),
        (64 * GIB, 0x7FFF, 65536),
    ],
)
def test_memory_module_has_its_size_in_the_field_that_can_say_it(
    memory_size: int, size: int, extended: int
) -> None:
    (module,) = structures(firmware_memory(memory_size), 17)
    assert struct.unpack_from("<H", module, 12) == (size,)
    assert struct.unpack_from("<I", module, 28) == (extended,)


def test_mapped_ranges_are_those_of_ram() -> None:
    memory = firmware_memory(5 * GIB)

    mapped = [struct.unpack_from("<II", data, 4) for data in structures(memory, 19)]
    kib = layout.KIB
    assert mapped == [(0, 3 * GIB // kib - 1), (4 * GIB // kib, 6 * GIB // kib - 1)]
    (array,) = structures(memory, 16)
    assert struct.unpack_from("<I", array, 7) == (5 * GIB // kib,)
