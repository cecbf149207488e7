"""A virtio block device (VIRTIO 1.2, 5.2): sectors of a medium, moved by the VMM between it and chains.

Theory of operation
-------------------
A request is a chain: 16 readable bytes (type, reserved, sector), then the data, and a status as the last
writable byte. The model sees these 16 bytes and the lengths of the two parts. It says with `ChainServe` all
that is to be done, and no sector passes through it. A request for more than `PIECE` bytes is moved in pieces,
one at a time.

    IN, OUT    read, write: whole sectors within the capacity, else IOERR
    FLUSH      `Flush`: the answer comes when the medium is on stable storage
    GET_ID     the serial number, at most 20 bytes
    others     UNSUPP: no DISCARD, WRITE_ZEROES, SECURE_ERASE or lifetime

A chain without room for the header or for the status is no request: the device needs a reset, as on QEMU.

`written` is told as 2.7.8.2 wants it: how many bytes from the beginning of the writable part are written.
"""

from __future__ import annotations

import struct

from kvmbox.base.layout import SECTOR_SIZE
from kvmbox.contract.bulk_data import ChainServe, ChainTransfer, ChainWrite, Flush
from kvmbox.contract.model import DONE, SnapshotError
from kvmbox.devices.virtio.mmio import DEPTH, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.bulk_data import Chain

F_SEG_MAX: Final = 1 << 2
F_RO: Final = 1 << 5
F_BLK_SIZE: Final = 1 << 6
F_FLUSH: Final = 1 << 9

IN: Final = 0
OUT: Final = 1
FLUSH: Final = 4
GET_ID: Final = 8

OK: Final = 0
IOERR: Final = 1
UNSUPP: Final = 2

ID_SIZE: Final = 20
SEG_MAX: Final = 254
"""Header and status included, that is a whole queue."""
PIECE: Final = 1 << 20

_DISK: Final = 0
"""The one medium of the device."""
_HEADER: Final = struct.Struct("<IIQ")
_CONFIG: Final = struct.Struct("<QIIHBBI")  # capacity, size_max, seg_max, geometry, blk_size
_REQUEST: Final = struct.Struct("<IIQIII")  # handle, type, first byte, bytes of data, moved, status's place


class _Request:
    """A request that is under way: `place` is where its status goes."""

    __slots__ = ("kind", "moved", "offset", "place", "size")

    def __init__(self, kind: int, offset: int, size: int, place: int, moved: int = 0) -> None:
        self.kind = kind
        self.offset = offset
        self.size = size
        self.place = place
        self.moved = moved


class VirtioBlk(VirtioMmio):
    """See the module.

    >>> from kvmbox.devices.virtio.mmio import CONFIG, DEVICE_ID
    >>> disk = VirtioBlk(sectors=2048, read_only=0, serial=b"42")
    >>> disk.read(0, DEVICE_ID, 4), disk.read(0, CONFIG, 4)
    (2, 2048)
    """

    __slots__ = ("_open", "_read_only", "_sectors", "_serial")

    device_id: int = 2
    magic: bytes = b"VBK\x02"

    def __init__(self, *, sectors: int, read_only: int = 0, serial: bytes = b"") -> None:
        self._sectors = sectors
        self._read_only = read_only
        self._serial = serial[:ID_SIZE].ljust(ID_SIZE, b"\0")
        self._open: dict[int, _Request] = {}
        super().__init__(
            features=F_SEG_MAX | F_BLK_SIZE | F_FLUSH | (F_RO if read_only else 0),
            space=_CONFIG.pack(sectors, 0, SEG_MAX, 0, 0, 0, SECTOR_SIZE),
        )

    def _take(self, index: int, chain: Chain) -> None:
        if len(chain.head) < _HEADER.size or not chain.writable:
            self._break()
            return
        kind, _, sector = _HEADER.unpack_from(chain.head)
        place = chain.writable - 1
        size = chain.readable - _HEADER.size if kind == OUT else place
        fits = (kind == IN or (kind == OUT and not self._read_only)) and self._has(sector, size)
        if fits and 0 < size <= PIECE:  # what a guest asks for most: nothing else is made for it
            to_guest, skip = (1, 0) if kind == IN else (0, _HEADER.size)
            moved = sector * SECTOR_SIZE, skip, size, to_guest
            self._effects.append(ChainServe(chain.handle, _DISK, *moved, place, OK, IOERR))
            return
        request = _Request(kind, sector * SECTOR_SIZE, size, place)
        if fits:
            self._open[chain.handle] = request
            self._go(chain.handle, request)
        elif kind in (IN, OUT):
            self._answer(chain.handle, request, IOERR)
        elif kind == FLUSH:
            self._open[chain.handle] = request
            self._effects.append(Flush(chain.handle, _DISK))
        elif kind == GET_ID:
            request.moved = min(size, ID_SIZE)
            self._effects.append(ChainWrite(chain.handle, 0, self._serial[: request.moved]))
            self._answer(chain.handle, request, OK)
        else:
            self._answer(chain.handle, request, UNSUPP)

    def _has(self, sector: int, size: int) -> bool:
        count, odd = divmod(size, SECTOR_SIZE)
        return not odd and sector + count <= self._sectors

    def _go(self, handle: int, request: _Request) -> None:
        """Move the next piece, or answer."""
        left = request.size - request.moved
        if not left:
            del self._open[handle]
            self._answer(handle, request, OK)
            return
        to_guest = int(request.kind == IN)
        skip = request.moved if to_guest else _HEADER.size + request.moved
        offset = request.offset + request.moved
        self._effects.append(ChainTransfer(handle, _DISK, offset, skip, min(left, PIECE), to_guest))

    def _answer(self, handle: int, request: _Request, status: int) -> None:
        self._effects.append(ChainWrite(handle, request.place, bytes((status,))))
        filled = 0 if request.kind in (OUT, FLUSH) else request.moved
        self._use(handle, request.place + 1 if filled == request.place else filled)

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        request = self._open.get(tag)
        if request is None:
            return
        if request.kind != FLUSH and status == DONE:
            request.moved += min(request.size - request.moved, PIECE)
            self._go(tag, request)
        else:
            del self._open[tag]
            self._answer(tag, request, OK if status == DONE else IOERR)

    def _forget(self) -> None:
        self._open.clear()

    def _forget_queue(self, index: int) -> None:
        self._open.clear()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return super().snapshot() + b"".join(
            [
                _REQUEST.pack(handle, one.kind, one.offset, one.size, one.moved, one.place)
                for handle, one in self._open.items()
            ]
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        queues, behind = self._restored(state)
        if len(behind) % _REQUEST.size:
            raise SnapshotError(f"{len(behind)} bytes of requests")
        found: dict[int, _Request] = {}
        for handle, kind, offset, size, moved, place in _REQUEST.iter_unpack(behind):
            fits = offset % SECTOR_SIZE == 0 and self._has(offset // SECTOR_SIZE, size) and moved <= size
            if handle in found or kind not in (IN, OUT, FLUSH) or not (fits or kind == FLUSH):
                raise SnapshotError(f"a request of kind {kind} for {size} bytes at {offset}, {moved} moved")
            found[handle] = _Request(kind, offset, size, place, moved)
        if len(found) > DEPTH:
            raise SnapshotError(f"{len(found)} requests")
        self._become(state, queues)
        self._open = found
