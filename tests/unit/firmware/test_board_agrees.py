"""The DSDT against the board: a device that firmware tells of is there, with its ports and interrupt."""

from __future__ import annotations

import struct

import pytest

from kvmbox import layout
from kvmbox.board import BoardOptions, DeviceSpec, pc_board
from tests.support.firmware_memory import ALL_SERIAL_PORTS, firmware_memory

DEVICE_OP = b"\x5b\x82"
IO, IRQ, MEMORY32, END = 0x47, 0x22, 0x86, 0x79

Resources = tuple[set[int], set[int], set[int]]
"""Ports, interrupts and addresses."""


def package(data: bytes, at: int) -> tuple[int, int]:
    """(where the content begins, where it ends) of a package whose PkgLength is at `at`."""
    following = data[at] >> 6
    if not following:
        return at + 1, at + data[at]
    length = data[at] & 0xF | int.from_bytes(data[at + 1 : at + 1 + following], "little") << 4
    return at + 1 + following, at + length


def resources(device: bytes) -> Resources:
    """What _CRS of a device says: a buffer of descriptors."""
    ports: set[int] = set()
    irqs: set[int] = set()
    memory: set[int] = set()
    begin, _ = package(device, device.index(b"_CRS\x11") + 5)
    at = begin + 2  # the size of the buffer: a byte, with its prefix
    while device[at] != END:
        if device[at] == IO:
            first, last, _, count = struct.unpack_from("<HHBB", device, at + 2)
            assert first == last
            ports |= set(range(first, first + count))
            at += 8
        elif device[at] == IRQ:
            mask = struct.unpack_from("<H", device, at + 1)[0]
            irqs |= {number for number in range(16) if mask >> number & 1}
            at += 3
        else:
            assert device[at] == MEMORY32
            base, size = struct.unpack_from("<II", device, at + 4)
            memory |= set(range(base, base + size))
            at += 12
    return ports, irqs, memory


def dsdt_devices() -> dict[str, Resources]:
    """The devices with resources, by name."""
    dsdt = firmware_memory(serial_ports=ALL_SERIAL_PORTS).acpi["DSDT"]
    found = {}
    at = dsdt.find(DEVICE_OP)
    while at >= 0:
        begin, end = package(dsdt, at + 2)
        device = dsdt[begin:end]
        if b"_CRS" in device:
            found[device[:4].decode().rstrip("_")] = resources(device)
        at = dsdt.find(DEVICE_OP, end)
    return found


def board_device(name: str) -> DeviceSpec:
    board = pc_board(BoardOptions(ALL_SERIAL_PORTS, rtc_base=0, memory_size=128 * layout.MIB))
    (device,) = (device for device in board if device.name == name)
    return device


def test_devices_with_resources_are_these() -> None:
    serial = {f"COM{number}" for number in range(1, 6)}
    assert set(dsdt_devices()) == serial | {"KBD", "PIT", "RTC", "HPET", "FWCF", "PEVT"}


@pytest.mark.parametrize(
    ("name", "on_board"),
    [
        *((f"COM{number}", f"COM{number}") for number in range(1, 5)),
        ("COM5", "MMIO"),
        ("KBD", "i8042"),
        ("PIT", "PIT"),
        ("RTC", "RTC"),
    ],
)
def test_device_has_the_resources_that_the_board_gives_it(name: str, on_board: str) -> None:
    ports, irqs, memory = dsdt_devices()[name]
    device = board_device(on_board)

    assert ports | memory
    assert ports <= {port for one in device.ports for port in range(one.first, one.first + one.count)}
    assert memory <= {address for one in device.mmio for address in range(one.first, one.first + one.count)}
    assert irqs
    assert irqs <= set(device.irqs)
