"""A virtio network device (VIRTIO 1.2, 5.1): frames, moved by the VMM between a wire of the host and chains.

Theory of operation
-------------------
Queue 0 has the chains that wait for received frames, queue 1 the frames to send. Before each frame is a
header. It says nothing but how many chains a received frame has taken, as there are no offloads. No byte of a
received frame reaches the model, and of a sent one those in the head of its chain. The VMM moves the frames:
`ChainTransfer`.

Sending. A chain goes back in the reply that has its frame moved: a frame that the host does not take is lost,
as on any wire. What is no frame, by its length, is not sent.

Receiving. `receive` is told the lengths of frames that wait at the VMM, 2 bytes each. The model takes as many
of them, from the first on, as it has chains for. Where a frame is in the medium: its number times 65536, and
then its bytes. A frame that does not fit is taken, and lost. When there are too few chains, `InputRoom` tells
when there are more. It does so when the first chain comes: before that nothing is received.

Without a control queue, a device receives every frame (5.1.6.5), and the driver filters them.
"""

from __future__ import annotations

import struct

from kvmbox.devices.media import ChainTransfer, ChainWrite
from kvmbox.devices.model import InputRoom, SnapshotError
from kvmbox.devices.virtio_mmio import DEPTH, F_VERSION_1, NEEDS_RESET, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.devices.media import Chain

RECEIVED: Final = 0
SENT: Final = 1

F_MAC: Final = 1 << 5
F_MRG_RXBUF: Final = 1 << 15
F_STATUS: Final = 1 << 16

LINK_UP: Final = 1

LEAST_FRAME: Final = 14
"""The header of Ethernet: two addresses, and a type."""
MOST_FRAME: Final = 1518
"""A header with a VLAN tag, and 1500 bytes."""

LENGTH: Final = struct.Struct("<H")
"""Of a frame that waits, in what `receive` is given."""
PLACE_SHIFT: Final = 16
MOST_CHAINS: Final = 16
"""How many chains a received frame may take: one that needs more is lost."""

_MOST_EFFECTS: Final = 24
"""When there are more of one request, no further frame is taken. The last one adds 33."""

_WIRE: Final = 0
"""The one medium of the device."""
_HEADER: Final = struct.Struct("<10sH")  # flags and offloads, how many chains a frame has
_LEGACY_HEADER_SIZE: Final = 10
_CONFIG: Final = struct.Struct("<6sH")  # address, status
_FIXED: Final = struct.Struct("<?")  # less was accepted than offered
_WAITING: Final = struct.Struct("<II")  # handle, bytes


class VirtioNet(VirtioMmio):
    """See the module. `mac` is the address of the interface: 6 bytes.

    >>> from kvmbox.devices.virtio_mmio import CONFIG, DEVICE_ID
    >>> net = VirtioNet(mac=bytes.fromhex("026b76000001"))
    >>> net.read(0, DEVICE_ID, 4), hex(net.read(0, CONFIG, 2))
    (1, '0x6b02')
    """

    __slots__ = ("_starved", "_waiting")

    device_id: int = 1
    queue_count: int = 2
    magic: bytes = b"VNT\x02"

    def __init__(self, *, mac: bytes) -> None:
        self._waiting: dict[int, int] = {}  # chains for received frames, in order: handle and size
        self._starved = True
        super().__init__(features=F_MAC | F_MRG_RXBUF | F_STATUS, space=_CONFIG.pack(mac, LINK_UP))

    @property
    def _header_size(self) -> int:
        has_count = self._features & (F_VERSION_1 | F_MRG_RXBUF)
        return _HEADER.size if has_count else _LEGACY_HEADER_SIZE

    def _take(self, index: int, chain: Chain) -> None:
        if index == SENT:
            size = chain.readable - self._header_size
            if LEAST_FRAME <= size <= MOST_FRAME:
                self._effects.append(ChainTransfer(chain.handle, _WIRE, 0, self._header_size, size, 0))
            self._use(chain.handle, 0)
        elif chain.writable > self._header_size:
            self._waiting[chain.handle] = chain.writable
        else:
            self._use(chain.handle, 0)

    def chains(self, now: int, index: int, chains: list[Chain], status: int) -> None:
        """See QueueModel."""
        super().chains(now, index, chains, status)
        self._tell_room()

    # --- Receiving ----------------------------------------------------------------------------------------

    def receive(self, now: int, data: bytes) -> int:
        """See the module. How many bytes of lengths were accepted: 2 for each frame."""
        accepted = 0
        for number, (size,) in enumerate(LENGTH.iter_unpack(data[: len(data) & ~1])):
            if len(self._effects) > _MOST_EFFECTS and self._waiting:
                self._effects.append(InputRoom(len(self._waiting)))
                return accepted
            if self._status & NEEDS_RESET or not self._deliver(number, size):
                break
            accepted += LENGTH.size
        self._starved = accepted < len(data)
        return accepted

    def _deliver(self, number: int, size: int) -> bool:
        """Put a frame into chains, if there are enough. A frame that is not to be had is lost."""
        wanted = self._chains_for(self._header_size + size)
        if wanted is None:
            return False
        place, skip = number << PLACE_SHIFT, self._header_size
        if wanted:
            header = _HEADER.pack(bytes(_LEGACY_HEADER_SIZE), len(wanted))[:skip]
            self._effects.append(ChainWrite(wanted[0], 0, header))
        for handle in wanted:
            part = min(self._waiting.pop(handle) - skip, size)
            if part:
                self._effects.append(ChainTransfer(handle, _WIRE, place, skip, part, 1))
            self._use(handle, skip + part)
            place, size, skip = place + part, size - part, 0
        return True

    def _chains_for(self, size: int) -> list[int] | None:
        """The chains for so many bytes; none if a frame of that size has to be lost; None if it can wait."""
        found: list[int] = []
        for handle, room in self._waiting.items():
            found.append(handle)
            if room >= size:
                return found
            if not self._features & F_MRG_RXBUF:
                return []
            size -= room
            if len(found) == MOST_CHAINS:
                return []
        return None

    def _tell_room(self) -> None:
        if self._starved and self._waiting:
            self._starved = False
            self._effects.append(InputRoom(len(self._waiting)))

    # --- State --------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._waiting.clear()
        self._starved = True

    def _forget_queue(self, index: int) -> None:
        if index == RECEIVED:
            self._forget()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        parts = [super().snapshot(), _FIXED.pack(self._starved)]
        return b"".join(parts + [_WAITING.pack(*one) for one in self._waiting.items()])

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        queues, behind = self._restored(state)
        if len(behind) < _FIXED.size or (len(behind) - _FIXED.size) % _WAITING.size:
            raise SnapshotError(f"{len(behind)} bytes of chains")
        (starved,) = _FIXED.unpack_from(behind)
        found = list(_WAITING.iter_unpack(behind[_FIXED.size :]))
        if len(dict(found)) != len(found) or len(found) > DEPTH:
            raise SnapshotError(f"{len(found)} chains")
        if not all(size > _LEGACY_HEADER_SIZE for _, size in found):
            raise SnapshotError("a chain of a size that none has")
        self._become(state, queues)
        self._starved, self._waiting = starved, dict(found)
