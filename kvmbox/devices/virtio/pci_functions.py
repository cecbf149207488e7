"""Virtio devices as PCI functions (VIRTIO 1.2, 4.1): transitional ones, for old drivers and for new ones.

base address 0   the legacy interface, in ports
base address 1   the table of MSI-X
base address 4   common structure, interrupt status, configuration of the device, notifications
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base.layout import KIB, PAGE_SIZE
from kvmbox.base.value_classes import Value
from kvmbox.contract.device_spec import DeviceSpec, Grant, Queues
from kvmbox.contract.pci_function import MSIX, Bar, PciFunction, Piece
from kvmbox.contract.pci_grants import Intx, Vectors
from kvmbox.devices.virtio import registers
from kvmbox.devices.virtio.msix_table import ENTRY


class _Kind(Value):
    """A type of virtio device: its numbers, and how large its configuration space is."""

    device: int
    legacy: int
    class_code: int
    space: int


_KINDS: Final = {
    "virtio_net": _Kind(1, 0x1000, 0x020000, 0x20),
    "virtio_blk": _Kind(2, 0x1001, 0x010000, 0x40),
    "virtio_console": _Kind(3, 0x1003, 0x078000, 0x10),
    "virtio_rng": _Kind(4, 0x1005, 0x00FF00, 0x08),
}
_VENDOR: Final = 0x1AF4

_VENDOR_SPECIFIC: Final = 0x09
_CAPABILITY: Final = struct.Struct("<BBBBB3xII")  # 4.1.4: id, link, length, type, register, offset, length
_NOTIFY: Final = struct.Struct("<I")
_MSIX: Final = struct.Struct("<BBHII")
_COMMON_CFG, _NOTIFY_CFG, _ISR_CFG, _DEVICE_CFG = range(1, 5)

_TABLE_BAR: Final = 1
_MODERN_BAR: Final = 4
_PBA_OFFSET: Final = 2 * KIB


def on_pci(device: DeviceSpec) -> DeviceSpec:
    """A virtio device as `board` has them, as a function."""
    kind = _KINDS[device.model]
    (queues,) = device.granted(Queues)
    vectors = queues.count + 1
    grants: tuple[Grant, ...] = (
        Intx(),
        Vectors(vectors),
        *(
            Queues(**one.as_dict() | {"initial_size": one.max_size}) if isinstance(one, Queues) else one
            for one in device.grants
        ),
    )
    changed = {"model": f"{device.model}_pci", "grants": grants, "pci": _function(kind, queues.count)}
    return DeviceSpec(**device.as_dict() | changed)


def _function(kind: _Kind, queues: int) -> PciFunction:
    vectors = queues + 1
    structures = (
        (_COMMON_CFG, 0, registers.COMMON, registers.COMMON_SIZE),
        (_ISR_CFG, PAGE_SIZE, registers.ISR, 4),
        (_DEVICE_CFG, 2 * PAGE_SIZE, registers.CONFIG, kind.space),
        (_NOTIFY_CFG, 3 * PAGE_SIZE, registers.NOTIFY, registers.NOTIFY_STEP * queues),
    )
    table = Bar(
        PAGE_SIZE,
        (
            Piece(0, ENTRY.size * vectors, registers.TABLE),
            Piece(_PBA_OFFSET, 8, registers.PBA),
        ),
    )
    modern = Bar(
        4 * PAGE_SIZE,
        tuple(Piece(start, count, register) for _, start, register, count in structures),
        is_wide=True,
        is_prefetchable=True,
    )
    return PciFunction(
        (_VENDOR, kind.legacy, _VENDOR, kind.device),
        kind.class_code,
        (_legacy(kind.space), table, None, None, modern),
        (
            _MSIX.pack(MSIX, 0, vectors - 1, _TABLE_BAR, _PBA_OFFSET | _TABLE_BAR),
            *(_structure(what, start, count) for what, start, _, count in structures),
        ),
    )


def _legacy(space: int) -> Bar:
    """The ports of the legacy interface: the configuration begins behind what the header has (4.1.4.8)."""
    size = 1 << (registers.LEGACY_SIZE_MSIX + space - 1).bit_length()

    def pieces(header: int) -> tuple[Piece, ...]:
        return Piece(0, header, registers.LEGACY), Piece(header, space, registers.CONFIG)

    return Bar(
        size,
        pieces(registers.LEGACY_SIZE),
        is_io=True,
        with_msix=pieces(registers.LEGACY_SIZE_MSIX),
    )


def _structure(what: int, start: int, count: int) -> bytes:
    """The capability that says where a structure is (4.1.4)."""
    tail = _NOTIFY.pack(registers.NOTIFY_STEP) if what == _NOTIFY_CFG else b""
    size = _CAPABILITY.size + len(tail)
    return _CAPABILITY.pack(_VENDOR_SPECIFIC, 0, size, what, _MODERN_BAR, start, count) + tail
