"""A board with PCI: the host bridge, the bridge to ISA, and the functions of devices.

What a PC's firmware does is done here, before the guest starts: functions get numbers, addresses and
interrupt lines. The chips are those that PCI kernels know best, i440FX and PIIX3 (Intel 82441FX and 82371SB).
Of them there is what guests look for: the identity, and the router of interrupts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.contract.device_spec import AddressRange, DeviceSpec, Reset
from kvmbox.contract.names import VGA
from kvmbox.contract.pci_function import MSI, MSIX, PCI, Bar, PciFunction, PlacedFunction
from kvmbox.contract.pci_grants import PciBus
from kvmbox.devices.pci.model import (
    BUS_MASTER,
    IO_SPACE,
    IS_IO,
    IS_PREFETCHABLE,
    IS_WIDE,
    MEMORY_SPACE,
    PIRQ,
    pack_function,
)

HOST_BRIDGE: Final = 0 << 3
ISA_BRIDGE: Final = 1 << 3
DISPLAY: Final = 2 << 3
IDE_FUNCTION: Final = ISA_BRIDGE | 1
FIRST_SLOT: Final = 3
LAST_SLOT: Final = 13
"""All functions together have to fit in the frame that greets the process."""

_INTEL: Final = 0x8086
_BOCHS: Final = 0x1234
_SUBSYSTEM: Final = 0x1AF4, 0x1100
"""What QEMU's devices have that say nothing else."""
_FRAME_BUFFER: Final = Bar(layout.FRAME_BUFFER_SIZE, (), is_prefetchable=True)
_DISPLAY: Final = PciFunction(
    (_BOCHS, 0x1111, *_SUBSYSTEM), 0x030000, (_FRAME_BUFFER,), revision=2, interrupts=False
)
_MULTIFUNCTION: Final = 0x80
_CAPABILITIES: Final = 0x10  # of the status register
_MEDIUM_TIMING: Final = 0x280
_FIRST_CAPABILITY: Final = 0x40
# Of a capability: (offset, the writable bits of each byte, how many bytes).
_WRITABLE: Final = {
    MSIX: ((3, 0xC0, 1),),  # enable, and mask all
    MSI: ((2, 0x01, 1), (4, 0xFC, 1), (5, 0xFF, 9)),  # enable; address and data
}

Capability = tuple[int, int, bytes]


def with_pci(board: Sequence[DeviceSpec]) -> list[DeviceSpec]:
    """The board with a PCI bus, on which the devices are that have a `pci_function`.

    Raises UsageError if there are too many.
    """
    devices = [device for device in board if device.pci is not None]
    ide = [IDE_FUNCTION] if any(device.device_type == "ide" for device in board) else []
    functions = [_host_bridge(), _isa_bridge(), *(_ide() for _ in ide)]
    placed = [PlacedFunction(number, "") for number in (HOST_BRIDGE, ISA_BRIDGE, *ide)]
    if any(device.name == VGA for device in board):
        placed.append(PlacedFunction(DISPLAY, "", ((0, _FRAME_BUFFER, layout.FRAME_BUFFER),)))
        functions.append(_packed(_DISPLAY, placed[-1]))
    for device, slot, addresses in zip(devices, _slots(devices), _addresses(devices), strict=True):
        assert device.pci is not None
        has_msi = any(one[0] == MSI for one in device.pci.capabilities)
        one = PlacedFunction(slot << 3, device.name, addresses, (slot - 1) % len(layout.PIRQ_LINES), has_msi)
        placed.append(one)
        functions.append(_packed(device.pci, one))
    bridge = DeviceSpec(
        PCI,
        "pci",
        "pci_host",
        ports=(AddressRange(layout.PCI_ADDRESS_PORT, layout.PCI_PORT_COUNT),),
        parameters={"functions": b"".join(functions)},
        grants=(PciBus(tuple(placed)), Reset()),
        natural_sizes=frozenset({2, 4}),
        on_demand=True,
    )
    return [*(device for device in board if device.model != "reset_control"), bridge]


def _slots(devices: Sequence[DeviceSpec]) -> Iterator[int]:
    wanted = {device.pci.slot for device in devices if device.pci is not None}
    free = (slot for slot in range(FIRST_SLOT, LAST_SLOT + 1) if slot not in wanted)
    for device in devices:
        assert device.pci is not None
        slot = next(free, None) if device.pci.slot is None else device.pci.slot
        if slot is None:
            raise UsageError(
                f"{len(devices)} devices on PCI, and there is room for {LAST_SLOT + 1 - FIRST_SLOT}"
            )
        yield slot


def _addresses(devices: Sequence[DeviceSpec]) -> list[tuple[tuple[int, Bar, int], ...]]:
    """What each device's registers place, and where: the large ones first, so that all are aligned."""
    found: list[list[tuple[int, Bar, int]]] = [[] for _ in devices]
    wanted = [
        (bar, index, number)
        for number, device in enumerate(devices)
        for index, bar in enumerate(() if device.pci is None else device.pci.bars)
        if bar is not None
    ]
    next_port, next_address = layout.PCI_PORTS, layout.PCI_MEMORY
    for bar, index, number in sorted(wanted, key=lambda one: -one[0].size):
        if bar.is_io:
            address, next_port = next_port, next_port + bar.size
        else:
            address, next_address = next_address, next_address + bar.size
        found[number].append((index, bar, address))
    if next_port > layout.PCI_PORTS_END or next_address > layout.PCI_MEMORY_END:
        raise UsageError("the devices on PCI have more registers than there are addresses")
    return [tuple(sorted(one, key=lambda placed: placed[0])) for one in found]


def _packed(function: PciFunction, placed: PlacedFunction) -> bytes:
    registers = [(0, 0)] * 6
    command = BUS_MASTER
    for index, bar, address in placed.bars:
        kind = IS_IO if bar.is_io else IS_WIDE * bar.is_wide | IS_PREFETCHABLE * bar.is_prefetchable
        registers[index] = address | kind, bar.size.bit_length() - 1
        command |= IO_SPACE if bar.is_io else MEMORY_SPACE
    capabilities = list(_linked(function.capabilities))
    return pack_function(
        placed.number,
        function.ids,
        function.class_code,
        revision=function.revision,
        line=layout.PIRQ_LINES[placed.pirq] if function.interrupts else 0,
        pin=int(function.interrupts),
        command=command,
        status=_CAPABILITIES if capabilities else 0,
        bars=tuple(registers),
        capabilities=_FIRST_CAPABILITY if capabilities else 0,
        runs=capabilities,
    )


def _linked(capabilities: Sequence[bytes]) -> Iterator[Capability]:
    """Each capability at its place, with a link to the next one, and what the guest writes of it."""
    place = _FIRST_CAPABILITY
    for number, data in enumerate(capabilities, 1):
        behind = place + (len(data) + 3) // 4 * 4
        link = behind if number < len(capabilities) else 0
        yield place, 0, bytes((data[0], link)) + data[2:]
        for at, writable, count in _WRITABLE.get(data[0], ()):
            yield place + at, writable, data[at : at + count]
        place = behind


def _host_bridge() -> bytes:
    return pack_function(
        HOST_BRIDGE,
        (_INTEL, 0x1237, *_SUBSYSTEM),
        0x060000,
        revision=2,
        command=IO_SPACE | MEMORY_SPACE | BUS_MASTER,
        runs=[(0x40, 0xFF, bytes(0xC0))],
    )


def _isa_bridge() -> bytes:
    """The router's registers as the firmware leaves them; the others keep what is written."""
    return pack_function(
        ISA_BRIDGE,
        (_INTEL, 0x7000, *_SUBSYSTEM),
        0x060100,
        header=_MULTIFUNCTION,
        command=IO_SPACE | MEMORY_SPACE | BUS_MASTER,
        status=_MEDIUM_TIMING,
        runs=[(0x40, 0xFF, bytes(0xC0)), (PIRQ, 0xFF, bytes(layout.PIRQ_LINES))],
    )


def _ide() -> bytes:
    """Both channels at the ports and interrupts of an ISA bus, and no bus master: the programming interface
    says so. Both are enabled (IDETIM, bit 15).
    """
    return pack_function(
        IDE_FUNCTION,
        (_INTEL, 0x7010, *_SUBSYSTEM),
        0x010100,
        command=IO_SPACE,
        status=_MEDIUM_TIMING,
        runs=[(0x40, 0xFF, bytes((0, 0x80, 0, 0x80)))],
    )
