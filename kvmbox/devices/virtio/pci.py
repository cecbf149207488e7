"""The transport of virtio devices over PCI (VIRTIO 1.2, 4.1), and the legacy one of old drivers (4.1.4.8).

Theory of operation
-------------------
The device is that of `mmio`: features, queues and chains are the same. Here are other registers, at
offsets that `pci_functions` places in base address registers:

    CONFIG   the configuration space of the device type, as over MMIO
    COMMON   the common configuration structure (4.1.4.3): fields may be read with any size, and are written
             with their own, those of 8 bytes in two halves
    ISR      what the interrupt is for; reading acknowledges: it is the VMM's
    NOTIFY   4 bytes for each queue: a write notifies, and does not come here
    LEGACY   the header of the legacy interface, with the two fields that are there while MSI-X is on
    TABLE    the table of MSI-X (PCI Local Bus Specification 3.0, 6.8.2); PBA reads as 0: see
    `remote.bus.pci_fabric`

Pins. 0 is INTx. Vector n of MSI-X is pin n + 1. What has no vector interrupts by pin 0, which is silent while
MSI-X is on. So the device need not know whether it is.

Legacy. The driver gives one page number for a queue of the size that the device says, and does not know of
FEATURES_OK. All else is as ever.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import EVENT_INDEX, INDIRECT, Queue
from kvmbox.contract.model import SnapshotError
from kvmbox.contract.pci_effects import Message
from kvmbox.devices.virtio.blk import VirtioBlk
from kvmbox.devices.virtio.console import VirtioConsole
from kvmbox.devices.virtio.mmio import F_EVENT_IDX, F_INDIRECT_DESC, NEEDS_RESET, PIN, QUEUE_SIZE, VirtioMmio
from kvmbox.devices.virtio.msix_table import ENTRY, MASKED, NO_VECTOR, PciState
from kvmbox.devices.virtio.net import VirtioNet
from kvmbox.devices.virtio.registers import (
    COMMON,
    COMMON_SIZE,
    CONFIG,
    LEGACY,
    PAGE,
    PBA,
    TABLE,
    legacy_areas,
)
from kvmbox.devices.virtio.rng import VirtioRng

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_ONES: Final = 0xFFFF_FFFF
_AREAS: Final = 0x20  # in the common structure: 8 bytes for each of a queue's three addresses
_COMMON: Final = struct.Struct("<4I2H2B5H3Q")
_LEGACY: Final = struct.Struct("<3I3H2B2H")
_MAGIC: Final = b"VPC\x01"


class VirtioPci(VirtioMmio):
    """What makes of a virtio device one over PCI: a subclass inherits from this, and then from the device."""

    __slots__ = ()

    def __init__(self, **parameters: Any) -> None:
        """`parameters` are those of the device."""
        self._pci = PciState(self.queue_count)
        super().__init__(**parameters)

    def _power_on(self) -> None:
        super()._power_on()
        for queue in self._queues:
            queue.size = QUEUE_SIZE
        self._pci.forget_vectors()

    def reset(self, now: int) -> None:
        """See DeviceModel. A reset by the driver leaves the table of MSI-X as it is."""
        super().reset(now)
        self._pci = PciState(self.queue_count)

    # --- Registers ----------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        if offset < COMMON:
            return super().read(now, offset, size) if offset >= CONFIG else (1 << 8 * size) - 1
        if TABLE <= offset < PBA:
            start, data = offset - TABLE, bytes(self._pci.table)
        elif offset >= PBA:
            start, data = 0, bytes(8)
        elif offset >= LEGACY:
            start, data = offset - LEGACY, self._legacy_header()
        elif offset < COMMON + COMMON_SIZE:
            start, data = offset - COMMON, self._common()
        else:
            start, data = 0, bytes(8)  # a notification cannot be read
        found = data[start : start + size]
        return int.from_bytes(found.ljust(size, b"\xff"), "little")

    def _common(self) -> bytes:
        queue, index = self._queue(), self._selected[2]
        size, vector, ready, place, areas = 0, NO_VECTOR, 0, 0, [0, 0, 0]
        if queue is not None:
            size, vector, ready, place = queue.size, self._pci.queues[index], queue.ready, index
            areas = queue.areas
        return _COMMON.pack(
            *(self._selected[0], self._offered() & _ONES, self._selected[1], self._accepted()),
            *(self._pci.config, self.queue_count),
            *(self._status, 0),
            *(index & 0xFFFF, size, vector, ready, place),
            *areas,
        )

    def _accepted(self) -> int:
        half = self._selected[1]
        return self._features >> 32 * half & _ONES if half < 2 else 0

    def _legacy_header(self) -> bytes:
        queue, index = self._queue(), self._selected[2]
        page, size, vector = 0, 0, NO_VECTOR
        if queue is not None:
            page = queue.areas[0] // PAGE & _ONES if queue.ready else 0
            size, vector = QUEUE_SIZE, self._pci.queues[index]
        return _LEGACY.pack(
            *(self.features & _ONES, self._features & _ONES, page),
            *(size, index & 0xFFFF, 0),
            *(self._status, 0),
            *(self._pci.config, vector),
        )

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        value &= (1 << 8 * size) - 1
        if TABLE <= offset < TABLE + len(self._pci.table):
            self._write_table(offset - TABLE, value.to_bytes(size, "little"))
        elif offset >= LEGACY:
            self._write_legacy(offset, size, value)
        elif offset >= COMMON + _AREAS and size == 4:
            area, half = divmod(offset - COMMON - _AREAS, 8)
            queue = self._queue()
            if queue is not None and not queue.ready and area < 3 and half in (0, 4):
                shift = 8 * half
                queue.areas[area] = queue.areas[area] & ~(_ONES << shift) | value << shift
        elif offset >= COMMON:
            self._write_common(offset, size, value)

    def _write_common(self, offset: int, size: int, value: int) -> None:
        queue = self._queue()
        match offset - COMMON, size:
            case (0x00, 4):
                self._selected[0] = value
            case (0x08, 4):
                self._selected[1] = value
            case (0x0C, 4):
                self._accept(value)
            case (0x10, 2):
                self._pci.config = self._pci.named(value)
            case (0x14, 1):
                self._set_status(value)
            case (0x16, 2):
                self._selected[2] = value
            case (0x18, 2) if queue is not None and not queue.ready:
                queue.size = value
            case (0x1A, 2) if queue is not None:
                self._set_vector(value)
            case (0x1C, 2) if value == 1:
                self._set_ready(1)

    def _write_legacy(self, offset: int, size: int, value: int) -> None:
        match offset - LEGACY, size:
            case (0x04, 4) if not any(queue.ready for queue in self._queues):
                # What chains look like must not change while there are some.
                self._features = value & self.features
            case (0x08, 4):
                self._set_page(value)
            case (0x0E, 2):
                self._selected[2] = value
            case (0x12, 1) if value:
                self._become_status(self._status & NEEDS_RESET | value & ~NEEDS_RESET)
            case (0x12, 1):
                self._set_status(0)
            case (0x14, 2):
                self._pci.config = self._pci.named(value)
            case (0x16, 2) if self._queue() is not None:
                self._set_vector(value)

    def _set_page(self, page: int) -> None:
        """The legacy driver says where a queue is, or, with 0, that it is nowhere."""
        queue, index = self._queue(), self._selected[2]
        if queue is None or bool(page) == bool(queue.ready):
            return
        queue.ready = int(page != 0)
        self._unpublish(index)
        if page:
            queue.size, queue.areas = QUEUE_SIZE, list(legacy_areas(page, QUEUE_SIZE))
            flags = EVENT_INDEX * (self._features & F_EVENT_IDX > 0)
            flags |= INDIRECT * (self._features & F_INDIRECT_DESC > 0)
            self._effects.append(Queue(index, queue.size, flags, *queue.areas))
            self._want(index)

    # --- Interrupts ---------------------------------------------------------------------------------------

    def _message(self, vector: int) -> tuple[int, int, int]:
        """Address and data, and whether it is sent."""
        address, data, control = ENTRY.unpack_from(self._pci.table, ENTRY.size * vector)
        return (0, 0, 0) if control & MASKED else (address, data, 1)

    def _write_table(self, start: int, data: bytes) -> None:
        vector = start // ENTRY.size
        before = self._message(vector)
        data = data[: ENTRY.size * (vector + 1) - start]
        self._pci.table[start : start + len(data)] = data
        address, message, is_sent = after = self._message(vector)
        if after != before:
            self._effects.append(Message(vector + 1, address, message, is_sent))

    def _pin_of(self, index: int) -> int:
        vector = self._pci.queues[index]
        return PIN if vector == NO_VECTOR else vector + 1

    def _pin_of_change(self) -> int:
        return PIN if self._pci.config == NO_VECTOR else self._pci.config + 1

    def _set_vector(self, value: int) -> None:
        index = self._selected[2]
        self._pci.queues[index] = self._pci.named(value)
        self._want(index)

    # --- State --------------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """See DeviceModel: the state of this transport, then the device's."""
        pci = self._pci
        vectors = struct.pack(f"<{1 + self.queue_count}H", pci.config, *pci.queues)
        return _MAGIC + vectors + bytes(pci.table) + super().snapshot()

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        form = struct.Struct(f"<{1 + self.queue_count}H")
        pci = PciState(self.queue_count)
        start = len(_MAGIC) + form.size
        end = start + len(pci.table)
        if len(state) < end or not state.startswith(_MAGIC):
            raise SnapshotError(f"not a snapshot of this model and version ({_MAGIC!r})")
        pci.config, *pci.queues = form.unpack_from(state, len(_MAGIC))
        if any(one != pci.named(one) for one in (pci.config, *pci.queues)):
            raise SnapshotError("a vector that there is not")
        if any(queue.size > 0xFFFF for queue in self._restored(state[end:])[0]):
            raise SnapshotError("a queue of more entries than its register can say")
        pci.table = bytearray(state[start:end])
        super().restore(state[end:])
        self._pci = pci


class VirtioBlkPci(VirtioPci, VirtioBlk):
    """A virtio block device over PCI.

    >>> VirtioBlkPci(sectors=2048).read(0, CONFIG, 4)
    2048
    """

    __slots__ = ()


class VirtioRngPci(VirtioPci, VirtioRng):
    """A virtio entropy device over PCI: the number of queues is in the common structure.

    >>> VirtioRngPci().read(0, COMMON + 0x12, 2)
    1
    """

    __slots__ = ()


class VirtioConsolePci(VirtioPci, VirtioConsole):
    """A virtio console over PCI.

    >>> VirtioConsolePci().read(0, COMMON + 0x12, 2)
    2
    """

    __slots__ = ()


class VirtioNetPci(VirtioPci, VirtioNet):
    """A virtio network device over PCI.

    >>> hex(VirtioNetPci(mac=bytes.fromhex("026b76000001")).read(0, CONFIG, 2))
    '0x6b02'
    """

    __slots__ = ()
