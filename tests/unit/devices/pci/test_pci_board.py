"""A board with PCI: functions get numbers, addresses and interrupts, as firmware gives them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.contract.device_spec import DeviceSpec, Irq, Medium, Queues
from kvmbox.contract.pci_effects import Control
from kvmbox.contract.pci_function import PCI, Bar, PciFunction, Piece
from kvmbox.contract.pci_grants import Intx, PciBus, Vectors, bus_of, interrupts_of
from kvmbox.devices.ide.board import IdeDrive, ide_board
from kvmbox.devices.pc_board import BoardOptions, pc_board
from kvmbox.devices.pci.board import with_pci
from kvmbox.devices.pci.model import PciHost
from kvmbox.devices.virtio.board import virtio_blk, virtio_console, virtio_rng
from kvmbox.devices.virtio.pci_functions import on_pci


def options() -> BoardOptions:
    return BoardOptions(("COM1",), 0, layout.MIB)


def host_of(board: list[DeviceSpec]) -> PciHost:
    (device,) = (device for device in board if device.name == PCI)
    return PciHost(**device.parameters)  # type: ignore[arg-type]  # bytes


def config(host: PciHost, function: int, register: int) -> int:
    host.write(0, 0, 4, 1 << 31 | function << 8 | register)
    return host.read(0, 4, 4)


def found(host: PciHost) -> list[tuple[int, int, int]]:
    """Number, class and ids of each function."""
    return [
        (function, config(host, function, 8) >> 8, config(host, function, 0))
        for function in range(256)
        if config(host, function, 0) != 0xFFFF_FFFF
    ]


def capabilities(host: PciHost, function: int) -> Iterator[tuple[int, list[int]]]:
    """Place of each capability, and its first five words."""
    place = config(host, function, 0x34) & 0xFF
    while place:
        words = [config(host, function, place + 4 * number) for number in range(5)]
        yield place, words
        place = words[0] >> 8 & 0xFF


def test_empty_bus_has_the_two_bridges() -> None:
    board = with_pci(pc_board(options()))
    host = host_of(board)
    bridges, display = [(0, 0x060000, 0x1237_8086), (8, 0x060100, 0x7000_8086)], (16, 0x030000, 0x1111_1234)
    assert found(host) == [*bridges, display]
    assert config(host, 16, 0x10) == layout.FRAME_BUFFER | 8
    assert "reset-control" not in {device.name for device in board}
    assert interrupts_of(board) == ()


def test_ide_channels_are_a_function_without_bus_master() -> None:
    host = host_of(with_pci([*pc_board(options()), *ide_board([IdeDrive("disk0", 8), None, None, None])]))
    assert found(host)[2] == (9, 0x010100, 0x7010_8086)
    assert config(host, 8, 0x0C) >> 16 == 0x80
    assert config(host, 9, 0x40) == 0x8000_8000
    for index in range(6):
        host.write(0, 0, 4, 1 << 31 | 9 << 8 | 0x10 + 4 * index)
        host.write(0, 4, 4, 0xFFFF_FFFF)
        assert host.read(0, 4, 4) == 0


def test_every_function_that_the_guest_sees_is_granted_what_its_registers_ask_for() -> None:
    channels = ide_board([IdeDrive("disk0", 8), None, None, None])
    board = with_pci([*pc_board(options()), *channels, on_pci(virtio_rng())])
    host = host_of(board)
    for function, _, _ in found(host):
        host.write(0, 0, 4, 1 << 31 | function << 8 | 0x04)
        host.write(0, 4, 2, 0x0400)  # interrupts off
    asking = {effect.function for effect in host.take_effects() if isinstance(effect, Control)}
    assert asking == {one.number for one in bus_of(board).functions} == {0, 8, 9, 16, 24}


def test_virtio_devices_are_transitional_functions() -> None:
    disk = virtio_blk(0, Medium("disk0", 4096))
    board = with_pci([*pc_board(options()), *map(on_pci, (disk, virtio_rng(), virtio_console()))])
    host = host_of(board)
    assert found(host)[3:] == [
        (0x18, 0x010000, 0x1001_1AF4),
        (0x20, 0x00FF00, 0x1005_1AF4),
        (0x28, 0x078000, 0x1003_1AF4),
    ]
    assert [config(host, function, 0x2C) >> 16 for function in (0x18, 0x20, 0x28)] == [2, 4, 3]
    assert interrupts_of(board) == ((3, 11), (4, 11), (5, 10))
    assert [config(host, function, 0x3C) for function in (0x18, 0x20, 0x28)] == [0x10B, 0x10B, 0x10A]


def test_devices_keep_their_grants_behind_those_of_the_function() -> None:
    console = on_pci(virtio_console())
    assert console.grants[:2] == (Intx(), Vectors(3))
    assert console.granted(Queues) == [Queues(2, initial_size=256)]
    assert console.grants[3:] == virtio_console().grants[1:]
    assert (console.irqs, console.mmio, console.ports) == ((), (), ())
    assert console.granted(Irq) == []


def test_capabilities_lead_to_the_structures() -> None:
    board = with_pci([*pc_board(options()), on_pci(virtio_rng())])
    host = host_of(board)
    listed = list(capabilities(host, 0x18))
    assert [words[0] & 0xFF for _, words in listed] == [0x11, 9, 9, 9, 9]
    _, msix = listed[0]
    assert (msix[0] >> 16, msix[1], msix[2]) == (1, 1, 0x801)
    structures = {words[0] >> 24: (words[1] & 0xFF, words[2], words[3]) for _, words in listed[1:]}
    assert structures == {1: (4, 0, 0x38), 3: (4, 0x1000, 4), 4: (4, 0x2000, 8), 2: (4, 0x3000, 4)}
    assert next(words for _, words in listed if words[0] >> 24 == 2)[4] == 4


def test_addresses_are_aligned_and_apart() -> None:
    devices = [on_pci(virtio_blk(number, Medium(f"disk{number}", 4096))) for number in range(5)]
    board = with_pci([*pc_board(options()), *devices])
    (bus,) = (bus for device in board for bus in device.granted(PciBus))
    spans: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for function in bus.functions:
        for _, bar, address in function.bars:
            assert address % bar.size == 0
            if bar.pieces:
                spans[bar.is_io].append((address, address + bar.size))
    for kind, (first, end) in (
        (True, (layout.PCI_PORTS, layout.PCI_PORTS_END)),
        (False, (layout.PCI_MEMORY, layout.PCI_MEMORY_END)),
    ):
        ordered = sorted(spans[kind])
        assert first <= ordered[0][0]
        assert ordered[-1][1] <= end
        assert all(one[1] <= two[0] for one, two in pairwise(ordered))


def test_memory_is_where_small_kernels_map_devices() -> None:
    """xv6 and what is made of it map 0xfe000000 to 4 GiB (DEVSPACE), and nothing else beyond RAM."""
    assert 0xFE00_0000 <= layout.PCI_MEMORY < layout.PCI_MEMORY_END <= layout.IO_APIC_BASE


def function(slot: int | None = None, size: int = 16) -> DeviceSpec:
    bar = Bar(size, (Piece(0, 16, 0),))
    return DeviceSpec(
        f"x{slot}", "x", "x", grants=(Intx(),), pci=PciFunction((1, 2, 3, 4), 0x030000, (bar,), slot=slot)
    )


def test_device_that_wants_a_slot_has_it() -> None:
    host = host_of(with_pci([function(), function(3), function(5)]))
    assert [number >> 3 for number, *_ in found(host)] == [0, 1, 3, 4, 5]


@pytest.mark.parametrize(
    "devices",
    [[function()] * 12, [function(size=1 << 28), function(size=1 << 28)]],
    ids=["functions", "addresses"],
)
def test_too_much_is_refused(devices: list[DeviceSpec]) -> None:
    with pytest.raises(UsageError, match="PCI"):
        with_pci(devices)


def test_all_functions_fit_in_the_greeting() -> None:
    devices = [on_pci(virtio_blk(number, Medium(f"disk{number}", 4096))) for number in range(11)]
    board = with_pci([*pc_board(options()), *ide_board([IdeDrive("disk0", 8), None, None, None]), *devices])
    (device,) = (device for device in board if device.name == PCI)
    assert len(device.parameters["functions"]) < 3900  # type: ignore[arg-type]  # bytes
