"""The AML encoder, byte by byte; the literals follow the ACPI Specification 6.5, section 20.2."""

from __future__ import annotations

import pytest

from kvmbox.firmware import aml


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (2, "0a 02"),
        (0xFF, "0a ff"),
        (0x100, "0b 00 01"),
        (0xFFFF, "0b ff ff"),
        (0x10000, "0c 00 00 01 00"),
        (0xFFFFFFFF, "0c ff ff ff ff"),
        (1 << 32, "0e 00 00 00 00 01 00 00 00"),
        ((1 << 64) - 1, "0e ff ff ff ff ff ff ff ff"),
    ],
)
def test_integer_takes_the_shortest_form(value: int, encoded: str) -> None:
    assert aml.integer(value) == bytes.fromhex(encoded)


@pytest.mark.parametrize("value", [-1, 1 << 64])
def test_integer_outside_of_64_bits_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="no integer of AML"):
        aml.integer(value)


@pytest.mark.parametrize(
    ("data_size", "length"),
    [  # PkgLength counts itself, the opcode does not: 1 + 1 + data, up to 63 in one byte
        (0, "02"),  # PkgLength, BufferSize (one byte), nothing
        (60, "3f"),  # 1 + 2 + 60
        (61, "41 04"),  # 2 + 2 + 61 = 65 = 0x41
        (4091 - 1, "4f ff"),  # 2 + 3 + 4090 = 4095
        (4091, "81 00 01"),  # 3 + 3 + 4091 = 4097 = 0x1001
        ((1 << 20) - 1 - 8, "8f ff ff"),  # 3 + 5 + data = 2^20 - 1
        ((1 << 20) - 8, "c1 00 00 01"),  # 4 + 5 + data = 2^20 + 1
    ],
)
def test_package_length_counts_itself_in_one_to_four_bytes(data_size: int, length: str) -> None:
    encoded = aml.buffer(bytes(data_size))

    expected = bytes.fromhex(length)
    assert encoded[0] == 0x11
    assert encoded[1 : 1 + len(expected)] == expected
    assert encoded == b"\x11" + expected + aml.integer(data_size) + bytes(data_size)


def test_package_longer_than_28_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="more than a package can hold"):
        aml.package_length(1 << 28)


@pytest.mark.parametrize(("name", "encoded"), [("C", b"C___"), ("_S5", b"_S5_"), ("COM1", b"COM1")])
def test_name_is_filled_up_to_four_characters(name: str, encoded: bytes) -> None:
    assert aml.name_segment(name) == encoded


@pytest.mark.parametrize("name", ["", "COM10", "1COM", "com1", "A B", "\\_S5", "A.B"])
def test_name_that_is_no_segment_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of one segment"):
        aml.name_segment(name)


def test_eisa_id_is_packed_by_five_and_by_four_bits() -> None:
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c 41 d0 05 01")
    assert aml.eisa_id("PNP0B00") == bytes.fromhex("0c 41 d0 0b 00")


@pytest.mark.parametrize("text", ["PNP050", "PNP05011", "pnp0501", "PN10501", "PNP05XY"])
def test_text_that_is_no_eisa_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        aml.eisa_id(text)


def test_string_ends_with_a_nul() -> None:
    assert aml.string("QEMU0002") == b"\x0dQEMU0002\0"


@pytest.mark.parametrize("text", ["a\0b", "µ"])
def test_string_that_cannot_be_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        aml.string(text)


def test_resource_descriptors_have_the_bytes_of_section_6_4() -> None:
    assert aml.io_ports(0x3F8, 8) == bytes.fromhex("47 01 f8 03 f8 03 01 08")
    assert aml.irq(4) == bytes.fromhex("22 10 00")
    assert aml.irq(4, 8) == bytes.fromhex("22 10 01")
    assert aml.memory32_fixed(0xD0000000, 8, writable=True) == bytes.fromhex(
        "86 09 00 01 00 00 00 d0 08 00 00 00"
    )
    assert aml.memory32_fixed(0xFED00000, 0x400, writable=False)[3] == 0


def test_resource_template_is_a_buffer_that_ends_with_an_end_tag() -> None:
    assert aml.resource_template(aml.irq(1)) == bytes.fromhex("11 08 0a 05 22 02 00 79 00")


def test_terms_nest() -> None:
    device = aml.device("D", aml.name("_UID", aml.integer(1)))

    assert device == b"\x5b\x82\x0bD___\x08_UID\x01"
    assert aml.scope("_SB", device) == b"\x10" + bytes([1 + 4 + len(device)]) + b"_SB_" + device
    assert aml.package(aml.integer(0), aml.integer(1)) == bytes.fromhex("12 04 02 00 01")
