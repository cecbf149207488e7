"""What a taken-over process of a disk, a network interface, PCI or the VGA asks for, and the VMM's side that
it asks: the devices as a run has them, with their grants, in a machine of a few pages.

The guest has published one queue, with one request of 16 readable and 512 writable bytes. Next to these, and
on a disk that belongs to nobody here, is what the process is after. A forgery got something if guest memory
beside what is published, or a disk, is not what it was, if a frame is on the wire, if a window is open, or if
the registers of a PCI function are where something else is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from kvmbox.base import layout
from kvmbox.base.memory import GuestMemory
from kvmbox.contract.bulk_data import (
    Aperture,
    ChainRead,
    ChainTransfer,
    ChainUsed,
    ChainWrite,
    Queue,
    Walk,
    Window,
)
from kvmbox.contract.device_spec import DeviceSpec, Medium, Queues
from kvmbox.contract.model import BAD_ADDRESS, DONE, Effect, MemoryRead, MemoryWrite, Transfer
from kvmbox.devices.virtio import mmio
from kvmbox.host.disk.transfers import BytesStore
from kvmbox.remote.channel.grants import Grants, Host, bind
from kvmbox.remote.channel.vga_window import allowed, count_of, pieces
from kvmbox.remote.published.data_window import CLOSED, DataWindow
from kvmbox.remote.published.medium import MediumAccess
from kvmbox.remote.published.queue_kinds import queues_of
from kvmbox.tools.audit.disk_targets import ide_disks, vga_devices, virtio_disks
from kvmbox.tools.audit.forgery import Forgery, Said
from kvmbox.tools.audit.net_forgeries import NotingPort, frame_effects, net_devices
from kvmbox.tools.audit.pci_forgeries import (
    OF_E1000,
    OF_PCI,
    crowded_buses,
    e1000_device,
    e1000_written,
    pci_device,
    placed,
)
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.remote.published.queues import DeviceQueues

SECTOR: Final = 512
SIZE: Final = 4096 * SECTOR
"""Bytes of each disk: more than a window may have."""
READABLE: Final = 16
WRITABLE: Final = 512
ENTRIES: Final = 8
DESCRIPTORS, AVAILABLE, USED, HEAD, BUFFER, SECRET = 0x1000, 0x1100, 0x1200, 0x2000, 0x3000, 0x4000
PUBLISHED: Final = range(DESCRIPTORS, SECRET)

IDE: Final = "ide"
VIRTIO: Final = "vblk"
NET: Final = "vnet"
PCI: Final = "pci"
VGA_TYPE: Final = "vga"
E1000: Final = "e1000"
FIRST: Final = 1
"""The handle that the VMM gives to the only request."""

_PUBLISH: Final[tuple[Said, ...]] = ((0, Queue(0, ENTRIES, 0, DESCRIPTORS, AVAILABLE, USED)), (0, Walk(0, 1)))

_WRITTEN: Final = (
    (mmio.QUEUE_NUM, ENTRIES),
    (mmio.QUEUE_DESC, DESCRIPTORS),
    (mmio.QUEUE_DRIVER, AVAILABLE),
    (mmio.QUEUE_DEVICE, USED),
    (mmio.QUEUE_READY, 1),
)
"""What the guest has written to registers of the first device: so it has published its queue."""


def _at_once(tries: str, device_type: str, effect: Effect) -> Forgery:
    return Forgery(tries, device_type, (((0, effect),),))


def _virtio(
    tries: str, effect: Effect, *between: tuple[Said, ...], index: int = 0, device_type: str = VIRTIO
) -> Forgery:
    """The effect comes when the process has its request, and behind the replies `between`."""
    return Forgery(tries, device_type, (_PUBLISH, *between, ((index, effect),)))


_DATA: Final = b"taken over"
_GIVEN_BACK: Final = ((0, ChainUsed(FIRST, 0)),)

# The formatter would give each cell a line of its own.
# fmt: off
FORGERIES: Final = {
    "window-beyond-end": _at_once("let the guest read behind the end of a disk",
        IDE, Window(1, 0, SIZE, SECTOR, 1)),
    "window-too-large": _at_once("open a window that is larger than granted",
        IDE, Window(1, 0, 0, (1 << 20) + SECTOR, 1)),
    "window-other-disk": _at_once("let the guest read a disk of somebody else's",
        IDE, Window(1, 2, 0, SECTOR, 1)),
    "window-read-only": _at_once("let the guest write to a disk that is read-only",
        IDE, Window(1, 1, 0, SECTOR, 0)),
    "disk-memory-read": _at_once("read guest memory, as an IDE channel", IDE, MemoryRead(1, [(SECRET, 64)])),
    "disk-memory-write": _at_once("write guest memory, as an IDE channel",
        IDE, MemoryWrite(SECRET, _DATA, 0)),
    "disk-dma": _at_once("have a disk read to guest memory, as an IDE channel",
        IDE, Transfer(1, 0, 0, [(SECRET, SECTOR)], 1)),
    "vga-memory-read": _at_once("read guest memory, as a VGA", VGA_TYPE, MemoryRead(1, [(SECRET, 64)])),
    "vga-dma": _at_once("have guest memory moved to a resource, as a VGA",
        VGA_TYPE, Transfer(1, 0, 0, [(SECRET, SECTOR)], 0)),
    "vga-window-elsewhere": _at_once("have guest memory brought as the window of a VGA",
        VGA_TYPE, Aperture(0, SECRET, 64)),
    "vga-window-beyond": _at_once("have more brought of the window than is granted",
        VGA_TYPE, Aperture(0, layout.VGA_MEMORY, 1 << 17)),
    "vga-window-wraps": _at_once("have memory brought that wraps at the last address to the window",
        VGA_TYPE, Aperture(0, (1 << 64) - SECTOR, layout.VGA_MEMORY + 2 * SECTOR)),
    "vga-window-plain": _at_once("have guest memory filled as the window of a VGA",
        VGA_TYPE, Aperture(1, SECRET, SECTOR)),
    "queue-elsewhere": Forgery(
        "have a ring written where it wants bytes of its own", VIRTIO, (
            ((0, Queue(0, ENTRIES, 0, DESCRIPTORS, AVAILABLE, SECRET)), _PUBLISH[1]),
            ((0, ChainUsed(FIRST, WRITABLE)),),  # which the VMM writes into the used ring
            ((0, ChainUsed(FIRST, WRITABLE)),))),
    "chain-forged": _virtio("write to a buffer by a handle that it made up", ChainWrite(77, 0, _DATA)),
    "chain-void": _virtio("write to a buffer that it has given back",
        ChainWrite(FIRST, 0, _DATA), _GIVEN_BACK),
    "chain-withdrawn": _virtio("write to a buffer of a queue that is no more",
        ChainWrite(FIRST, 0, _DATA), (), _PUBLISH[:1]),
    "chain-other-queue": _virtio("write to a buffer in the queue of another device",
        ChainWrite(FIRST, 0, _DATA), index=1),
    "chain-write-beyond": _virtio("write guest memory behind a buffer",
        ChainWrite(FIRST, WRITABLE - 1, _DATA)),
    "chain-read-beyond": _virtio("read guest memory behind a buffer", ChainRead(FIRST, 0, READABLE + 1)),
    "chain-other-disk": _virtio("read a disk of somebody else's to a buffer",
        ChainTransfer(FIRST, 1, 0, 0, SECTOR, 1)),
    "chain-beyond-end": _virtio("read behind the end of a disk to a buffer",
        ChainTransfer(FIRST, 0, SIZE, 0, SECTOR, 1)),
    "chain-read-only": _virtio("write a buffer to a disk that is read-only",
        ChainTransfer(FIRST, 0, 0, 0, READABLE, 0)),
    **{name: _virtio(tries, effect, *[_GIVEN_BACK] * (name == "frame-void"), device_type=NET)
       for name, (tries, effect) in frame_effects(FIRST, READABLE, WRITABLE, SECRET).items()},
    **{name: _at_once(tries, PCI, effect) for name, (tries, effect) in OF_PCI.items()},
    **{name: Forgery(tries, E1000, tuple(tuple((0, effect) for effect in reply) for reply in replies))
       for name, (tries, replies) in OF_E1000.items()},
}
# fmt: on
"""By the names of their probes."""


def devices_of(device_type: str) -> list[DeviceSpec]:
    """The devices of the process, as a run has them."""
    if device_type == IDE:
        return ide_disks(SIZE)
    if device_type == PCI:
        return [pci_device()]
    if device_type == E1000:
        return [e1000_device()]
    if device_type == VGA_TYPE:
        return vga_devices(VGA_TYPE)
    if device_type == NET:
        return list(net_devices())
    return virtio_disks(SIZE)


class Victim:
    """The VMM's side, and a host of its devices. Nobody hears of their lines."""

    def __init__(self, device_type: str) -> None:
        self.ram = GuestMemory(16 * layout.PAGE_SIZE)
        self._disks = {f"disk{number}": BytesStore(bytes((number + 1,)) * SIZE) for number in range(3)}
        self._port = NotingPort()
        self._windows: list[DataWindow] = []
        self.ram.write(DESCRIPTORS, struct.pack("<QIHHQIHH", HEAD, READABLE, 1, 1, BUFFER, WRITABLE, 2, 0))
        self.ram.write(AVAILABLE, struct.pack("<HHH", 0, 1, 0))
        self.ram.write(SECRET, b"secret" * 100)
        self.refusals: list[int] = []
        """The statuses, other than that all went well, that it was told, or would have been."""
        devices = devices_of(device_type)
        self.buses = crowded_buses(
            devices, self.ram, self.irq_source, lambda _line: self.refusals.append(BAD_ADDRESS)
        )
        host = cast(Host, self)
        self.grants: list[Grants] = [bind(device, host) for device in devices]
        media = self.grants[0].media
        if media is not None and media.queues is not None:
            for register, value in (
                e1000_written(self.ram, DESCRIPTORS, USED, BUFFER) if device_type == E1000 else _WRITTEN
            ):
                media.queues.note(register, value)
        self.requests_seen = 0
        """How many requests the process was sent."""
        self._before = self._state()

    def _state(self) -> list[bytes]:
        whole = self.ram.read(0, self.ram.size)
        parts = [whole[: PUBLISHED.start], whole[PUBLISHED.stop :]]
        return (
            parts
            + [bytes(disk.data) for disk in self._disks.values()]
            + [
                placed(self.buses),
                *self._port.sent,
            ]
        )

    @property
    def is_harmed(self) -> bool:
        """Whether a forgery got something."""
        return self._state() != self._before or any(window.use != CLOSED for window in self._windows)

    def notified(self) -> Sequence[Any]:
        """The guest notifies of its first queue, if it has one: what is to be sent."""
        media = self.grants[0].media
        return () if media is None or media.queues is None else media.queues.notified(0)

    def record(self, sent: bytes, _reply: bytes) -> None:
        """See `Channel.record`."""
        self.requests_seen += 1
        request = protocol.decode_request(sent)
        if request.kind == protocol.COMPLETE and request.value >> 32 != DONE:
            self.refusals.append(request.value >> 32)

    # What a host does for devices.

    def ask_for_reset(self) -> None:
        """See `remote.channel.grants.Host`."""

    def irq_source(self, _gsi: int) -> Callable[[int, int], None]:
        """See `remote.channel.grants.Host`."""
        return lambda _level, _coalesced: None

    def rise_of(self, _line: object) -> None:
        """See Host."""

    def input_room(self, _stream: str) -> Callable[[int], None]:
        """See Host."""
        return lambda _count: None

    def medium(self, _device: str, grant: Medium) -> MediumAccess:
        """See Host."""
        if grant.name == self._port.name:
            return MediumAccess(grant, self._port, lambda *_errand: False)
        store = self._disks[grant.name] if grant.size else BytesStore(b"")
        return MediumAccess(grant, store, lambda *_errand: False)

    def window(self, register: int) -> DataWindow:
        """See Host."""
        self._windows.append(DataWindow(register))
        return self._windows[-1]

    def aperture(self, index: int, effect: Effect) -> Any:
        """See Host. What is allowed gets the process what is there."""
        wanted = allowed(effect)
        if wanted is None:
            return None
        return (lambda: pieces(index, self.ram.read(wanted.address, wanted.size))), (), count_of(wanted.size)

    def queues(self, _device: str, grant: Queues) -> DeviceQueues:
        """See Host."""
        return queues_of(grant, self.ram, lambda _settle: False)
