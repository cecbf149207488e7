"""The configuration spaces of PCI (PCI Local Bus Specification 3.0), and the router of PIIX3."""

from __future__ import annotations

import pytest

from kvmbox.contract.model import Reset, SnapshotError
from kvmbox.contract.pci_effects import INTX_OFF, MSIX_MASKED, MSIX_ON, Control, Decode, Message, Route
from kvmbox.contract.pci_function import PCI
from kvmbox.devices.e1000.board import e1000_net
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.pci.model import PciHost, pack_function

IDS = 0x1AF4, 0x1005, 0x1AF4, 4
BRIDGE = pack_function(
    8, (0x8086, 0x7000, 0, 0), 0x060100, header=0x80, runs=[(0x60, 0xFF, b"\x0a\x0a\x0b\x0b")]
)
FUNCTION = pack_function(
    0x18,
    IDS,
    0x00FF00,
    revision=1,
    line=11,
    pin=1,
    command=7,
    status=0x10,
    bars=((0xC001, 5), (0xE000_4000, 12), (0, 0), (0, 0), (0xE000_0004, 14)),
    capabilities=0x40,
    runs=[(0x40, 0, b"\x09\x50\x10\x01"), (0x50, 0, b"\x11\x00\x01\x00" + bytes(8)), (0x53, 0xC0, b"\x00")],
)


def packed_with_msi() -> bytes:
    """The configuration spaces of a board with an e1000, which is 00:03.0."""
    (bus,) = [one for one in with_pci([e1000_net(0, bytes(6))]) if one.name == PCI]
    return bytes(bus.parameters["functions"])


@pytest.fixture
def host() -> PciHost:
    return PciHost(functions=BRIDGE + FUNCTION)


def select(host: PciHost, register: int, function: int = 0x18, bus: int = 0) -> None:
    host.write(0, 0, 4, 1 << 31 | bus << 16 | function << 8 | register)


def read(host: PciHost, register: int, size: int = 4, function: int = 0x18) -> int:
    select(host, register & ~3, function)
    return host.read(0, 4 + (register & 3), size)


def write(host: PciHost, register: int, value: int, size: int = 4, function: int = 0x18) -> list[object]:
    select(host, register & ~3, function)
    host.write(0, 4 + (register & 3), size, value)
    return list(host.take_effects())


# --- Mechanism #1 ----------------------------------------------------------------------------------------


def test_header_is_that_of_the_function(host: PciHost) -> None:
    assert [read(host, register) for register in (0x00, 0x04, 0x08, 0x0C, 0x2C, 0x34, 0x3C)] == [
        *(0x1005_1AF4, 0x0010_0007, 0x00FF_0001, 0, 0x0004_1AF4, 0x40, 0x010B)
    ]
    assert read(host, 0x0C, function=8) == 0x80_0000


def test_register_is_read_in_bytes_and_words(host: PciHost) -> None:
    assert [read(host, place, 1) for place in range(4)] == [0xF4, 0x1A, 0x05, 0x10]
    assert [read(host, place, 2) for place in (0, 2)] == [0x1AF4, 0x1005]


def test_address_takes_four_bytes_and_reads_back(host: PciHost) -> None:
    host.write(0, 0, 4, 0x8000_1804)
    for size in (1, 2):
        host.write(0, 0, size, 0)
        host.write(0, 2, size, 0)
    assert host.read(0, 0, 4) == 0x8000_1804
    assert [host.read(0, 0, size) for size in (1, 2)] == [0xFF, 0xFFFF]


@pytest.mark.parametrize("address", [0x0000_1800, 0x8001_1800, 0x8000_1900, 0x8000_2000])
def test_nothing_answers_where_there_is_no_function(host: PciHost, address: int) -> None:
    host.write(0, 0, 4, address)
    host.write(0, 4, 4, 0)
    assert [host.read(0, 4, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFF_FFFF]
    assert host.take_effects() == []


def test_reset_control_is_in_the_middle_of_the_address(host: PciHost) -> None:
    host.write(0, 1, 1, 2)
    assert host.read(0, 1, 1) == 2
    host.write(0, 1, 1, 6)
    assert host.take_effects() == [Reset()]


# --- What can be written ---------------------------------------------------------------------------------


def test_identity_and_capabilities_cannot_be_written(host: PciHost) -> None:
    places = (0x00, 0x08, 0x2C, 0x34, 0x40, 0x54)
    before = [read(host, place) for place in places]
    for place in places:
        assert write(host, place, 0xFFFF_FFFF) == []
    assert [read(host, place) for place in places] == before
    write(host, 0x3C, 0xFFFF)
    assert read(host, 0x3C) == 0x01FF


def test_registers_tell_their_size(host: PciHost) -> None:
    write(host, 0x04, 0, 2)
    for index in range(6):
        write(host, 0x10 + 4 * index, 0xFFFF_FFFF)
    assert [read(host, 0x10 + 4 * index) for index in range(6)] == [
        *(0xFFFF_FFE1, 0xFFFF_F000, 0, 0, 0xFFFF_C004, 0xFFFF_FFFF)
    ]


def test_command_has_the_bits_of_its_functions_alone(host: PciHost) -> None:
    write(host, 0x04, 0xFFFF, 2)
    assert read(host, 0x04, 2) == 0x0507


# --- Decoding --------------------------------------------------------------------------------------------


def test_register_that_is_moved_decodes_elsewhere(host: PciHost) -> None:
    assert write(host, 0x14, 0xE100_0FFF) == [Decode(0x18, 1, 0xE100_0000, 1)]
    assert write(host, 0x14, 0xE100_0000) == []
    assert write(host, 0x12, 0x0000, 2) == []
    assert write(host, 0x10, 0xD000) == [Decode(0x18, 0, 0xD000, 1)]


def test_half_of_a_wide_register_moves_it(host: PciHost) -> None:
    assert write(host, 0x24, 1) == [Decode(0x18, 4, 0x1_E000_0000, 1)]


@pytest.mark.parametrize("value", [0xFFFF_FFFF, 0])
def test_register_that_is_sized_decodes_nowhere(host: PciHost, value: int) -> None:
    assert write(host, 0x14, value) == [Decode(0x18, 1, 0, 0)]
    assert write(host, 0x10, value) == [Decode(0x18, 0, 0, 0)]
    assert write(host, 0x14, 0xE000_4000) == [Decode(0x18, 1, 0xE000_4000, 1)]


def test_wide_register_of_which_a_half_is_sized_decodes_nowhere(host: PciHost) -> None:
    assert write(host, 0x20, 0xFFFF_FFFF) == [Decode(0x18, 4, 0, 0)]
    assert write(host, 0x24, 0xFFFF_FFFF) == []
    assert write(host, 0x24, 0) == []
    assert write(host, 0x20, 0xE000_0004) == [Decode(0x18, 4, 0xE000_0000, 1)]


def test_command_turns_decoding_off_and_on(host: PciHost) -> None:
    assert write(host, 0x04, 6, 2) == [Decode(0x18, 0, 0, 0)]
    assert write(host, 0x04, 1, 2) == [
        Decode(0x18, 0, 0xC000, 1),
        Decode(0x18, 1, 0, 0),
        Decode(0x18, 4, 0, 0),
    ]


# --- Interrupts ------------------------------------------------------------------------------------------


def test_control_tells_how_a_function_interrupts(host: PciHost) -> None:
    assert write(host, 0x05, 4, 1) == [Control(0x18, INTX_OFF)]
    assert write(host, 0x53, 0xC0, 1) == [Control(0x18, INTX_OFF | MSIX_ON | MSIX_MASKED)]
    assert write(host, 0x50, 0x8000_0000) == [Control(0x18, INTX_OFF | MSIX_ON)]
    assert read(host, 0x52, 2) == 0x8001


def test_message_of_a_function_is_told_with_each_change() -> None:
    host = PciHost(functions=packed_with_msi())

    assert write(host, 0x44, 0xFEE0_1003) == [Message(0x18, 0xFEE0_1000, 0, 0)]
    assert write(host, 0x48, 0) == []
    assert write(host, 0x4C, 0xFFFF_0041) == [Message(0x18, 0xFEE0_1000, 0x41, 0)]
    assert write(host, 0x42, 0xFFFF, 2) == [Message(0x18, 0xFEE0_1000, 0x41, 1)]
    assert read(host, 0x40) == 0x0081_0005
    assert write(host, 0x42, 0, 2) == [Message(0x18, 0xFEE0_1000, 0x41, 0)]


@pytest.mark.parametrize(
    ("value", "line", "enabled"), [(5, 5, 1), (0x80, 0, 0), (0x8A, 10, 0), (13, 13, 0), (0x75, 5, 1)]
)
def test_router_leads_where_its_registers_say(host: PciHost, value: int, line: int, enabled: int) -> None:
    assert write(host, 0x62, value, 1, function=8) == [Route(2, line, enabled)]
    assert read(host, 0x60, function=8) == 0x0B00_0A0A | value << 16


def test_registers_of_other_functions_are_no_router(host: PciHost) -> None:
    assert write(host, 0x60, 5) == []


# --- State -----------------------------------------------------------------------------------------------


def test_reset_brings_back_what_the_firmware_left(host: PciHost) -> None:
    fresh = host.snapshot()
    write(host, 0x14, 0xE100_0000)
    write(host, 0x04, 0, 2)
    host.write(0, 1, 1, 2)
    host.reset(0)
    assert host.snapshot() == fresh
    assert host.take_effects() == []


def test_snapshot_is_the_whole_state(host: PciHost) -> None:
    write(host, 0x14, 0xE100_0000)
    host.write(0, 1, 1, 2)
    other = PciHost(functions=BRIDGE + FUNCTION)
    other.restore(host.snapshot())
    assert other.snapshot() == host.snapshot()
    assert read(other, 0x14) == 0xE100_0000
    assert other.take_effects() == []


def test_restore_refuses_what_no_host_can_have(host: PciHost) -> None:
    good = host.snapshot()
    fixed = bytearray(good)
    fixed[-256] ^= 1  # the vendor of the last function
    for bad in (b"", good[:-1], good + b"\0", b"XXX" + good[3:], bytes(fixed)):
        with pytest.raises(SnapshotError):
            host.restore(bad)
        assert host.snapshot() == good


def test_values_stay_until_something_is_written(host: PciHost) -> None:
    value = read(host, 0)
    assert host.steady(4, 4, value) > 0
