"""A virtio entropy device (VIRTIO 1.2, 5.4): random bytes of the host, moved by the VMM into chains.

No random byte passes through the model. It asks for one `ChainTransfer` a chain, of at most `MOST` bytes:
a driver that wants more asks again.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import ChainTransfer
from kvmbox.contract.model import DONE, SnapshotError
from kvmbox.devices.virtio.mmio import DEPTH, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.bulk_data import Chain

MOST: Final = 4096

_ENTROPY: Final = 0
"""The one medium of the device."""
_OPEN: Final = struct.Struct("<IH")  # handle, bytes


class VirtioRng(VirtioMmio):
    """See the module.

    >>> from kvmbox.devices.virtio.mmio import DEVICE_ID
    >>> VirtioRng().read(0, DEVICE_ID, 4)
    4
    """

    __slots__ = ("_open",)

    device_id: int = 4
    magic: bytes = b"VRN\x02"

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        super().__init__()

    def _take(self, index: int, chain: Chain) -> None:
        size = min(chain.writable, MOST)
        if size:
            self._open[chain.handle] = size
            self._effects.append(ChainTransfer(chain.handle, _ENTROPY, 0, 0, size, 1))
        else:
            self._use(chain.handle, 0)

    def complete(self, now: int, tag: int, status: int) -> None:
        """See MemoryModel."""
        size = self._open.pop(tag, None)
        if size is not None:
            self._use(tag, size if status == DONE else 0)

    def _forget(self) -> None:
        self._open.clear()

    def _forget_queue(self, index: int) -> None:
        self._open.clear()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return super().snapshot() + b"".join([_OPEN.pack(*one) for one in self._open.items()])

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        queues, behind = self._restored(state)
        if len(behind) % _OPEN.size:
            raise SnapshotError(f"{len(behind)} bytes of requests")
        found = list(_OPEN.iter_unpack(behind))
        if len(dict(found)) != len(found) or len(found) > DEPTH:
            raise SnapshotError(f"{len(found)} requests")
        if not all(0 < size <= MOST for _, size in found):
            raise SnapshotError("a request of a size that none has")
        self._become(state, queues)
        self._open = dict(found)
