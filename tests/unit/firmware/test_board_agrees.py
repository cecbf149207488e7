"""The tables against the board and its models: what firmware tells of is there, and does what it says."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from kvmbox.base import layout
from kvmbox.contract.device_spec import AddressRange, DeviceSpec
from kvmbox.contract.model import Reset
from kvmbox.devices.acpi import model as acpi_pm
from kvmbox.devices.hpet import model as hpet
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.pci import reset_control
from kvmbox.firmware import acpi
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
    table = firmware_memory(serial_ports=ALL_SERIAL_PORTS).acpi["DSDT"]
    found = {}
    at = table.find(DEVICE_OP)
    while at >= 0:
        begin, end = package(table, at + 2)
        device = table[begin:end]
        if b"_CRS" in device:
            found[device[:4].decode().rstrip("_")] = resources(device)
        at = table.find(DEVICE_OP, end)
    return found


def board_device(name: str) -> DeviceSpec:
    board = pc_board(BoardOptions(ALL_SERIAL_PORTS, rtc_base=0, memory_size=128 * layout.MIB))
    (device,) = (device for device in board if device.name == name)
    return device


def test_devices_with_resources_are_these() -> None:
    serial = {f"COM{number}" for number in range(1, 6)}
    assert set(dsdt_devices()) == serial | {"KBD", "MOU", "PIT", "RTC", "HPET", "FWCF", "PEVT"}


def addresses(ranges: Sequence[AddressRange]) -> set[int]:
    return {address for one in ranges for address in range(one.first, one.first + one.count)}


@pytest.mark.parametrize(
    ("name", "on_board"),
    [
        *((f"COM{number}", f"COM{number}") for number in range(1, 5)),
        ("COM5", "MMIO"),
        ("KBD", "i8042"),
        ("PIT", "PIT"),
        ("RTC", "RTC"),
        ("HPET", "HPET"),
        ("FWCF", "fw_cfg"),
        ("PEVT", "pvpanic"),
    ],
)
def test_device_has_the_resources_that_the_board_gives_it(name: str, on_board: str) -> None:
    ports, irqs, memory = dsdt_devices()[name]
    device = board_device(on_board)

    assert ports or memory
    # fw_cfg has a gap between its data port and its DMA register, which QEMU's DSDT spans, too.
    gap = {0x512, 0x513} if name == "FWCF" else set()
    assert ports - gap <= addresses(device.ports)
    assert memory <= addresses(device.mmio)
    # The HPET's interrupts are chosen in its registers, and the last two devices have none.
    assert bool(irqs) == (name not in {"HPET", "FWCF", "PEVT"})
    assert irqs <= set(device.irqs)


def test_fadt_names_the_registers_and_the_interrupt_of_the_board() -> None:
    fadt = firmware_memory().acpi["FACP"]
    power, reset = board_device("PM"), board_device("reset-control")

    event, control, timer = (struct.unpack_from("<I", fadt, at)[0] for at in (56, 64, 76))
    registers = {*range(event, event + 4), *range(control, control + 2), *range(timer, timer + 4)}
    assert registers <= addresses(power.ports)
    assert power.irqs == struct.unpack_from("<H", fadt, 46)
    assert struct.unpack_from("<Q", fadt, 120)[0] in addresses(reset.ports)


def test_timer_has_the_bits_that_the_fadt_tells() -> None:
    assert acpi_pm.TIMER_BITS == 24  # as TMR_VAL_EXT says


def test_hpet_table_repeats_the_block_s_own_capabilities() -> None:
    assert struct.unpack_from("<I", firmware_memory().acpi["HPET"], 36)[0] == hpet.CAPABILITIES & 0xFFFFFFFF


def test_reset_value_of_the_fadt_resets() -> None:
    model = reset_control.ResetControl()
    model.write(0, layout.RESET_CONTROL_PORT - layout.PCI_ADDRESS_PORT, 1, acpi.RESET_VALUE)
    assert model.take_effects() == [Reset()]
