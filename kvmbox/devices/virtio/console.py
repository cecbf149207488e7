"""A virtio console with one port (VIRTIO 1.2, 5.3): what the guest writes goes to the host, and back.

Theory of operation
-------------------
Queue 0 has the chains that wait for input, queue 1 those with output. There are no features: no size, no
further ports, no emergency write.

Output. The VMM has sent the first bytes of a chain with it. For more the model asks with `ChainRead`, one
frame at a time. A chain of more than `MOST_OUTPUT` bytes is none that a driver makes: the device needs a
reset.

Input. `receive` writes to the chains in hand, each of which goes back with what it got. When they are full,
less is accepted than is offered, and `InputRoom` tells when there is room again.
"""

from __future__ import annotations

import struct

from kvmbox.contract.bulk_data import ChainRead, ChainWrite
from kvmbox.contract.model import HostOutput, InputRoom, SnapshotError
from kvmbox.devices.virtio.mmio import BATCH, DEPTH, NEEDS_RESET, VirtioMmio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from kvmbox.contract.bulk_data import Chain

INPUT: Final = 0
OUTPUT: Final = 1

MOST_OUTPUT: Final = 1 << 16
MOST_INPUT: Final = 2048
"""What one call of `receive` takes at most: its effects have to fit in a frame."""
READ_SIZE: Final = 3968
"""What one `ChainRead` asks for: it comes out as `HostOutput`, in a frame with the next question."""

_FIXED: Final = struct.Struct("<?B")  # less was accepted than offered, how many chains wait for input
_WAITING: Final = struct.Struct("<II")  # handle, bytes
_OPEN: Final = struct.Struct("<III")  # handle, bytes, printed


class VirtioConsole(VirtioMmio):
    """See the module.

    >>> from kvmbox.devices.virtio.mmio import DEVICE_ID
    >>> VirtioConsole().read(0, DEVICE_ID, 4)
    3
    """

    __slots__ = ("_open", "_starved", "_waiting")

    device_id: int = 3
    queue_count: int = 2
    magic: bytes = b"VCN\x02"

    def __init__(self) -> None:
        self._waiting: dict[int, int] = {}  # chains for input, in order: handle and size
        self._open: dict[int, tuple[int, int]] = {}  # chains of output: handle, size and how much was printed
        self._starved = False
        super().__init__()

    # --- Output -------------------------------------------------------------------------------------------

    def _take(self, index: int, chain: Chain) -> None:
        if index == INPUT:
            if chain.writable:
                self._waiting[chain.handle] = chain.writable
                self._tell_room()
            else:
                self._use(chain.handle, 0)
        elif chain.readable > MOST_OUTPUT:
            self._break()
        else:
            self._print(chain.handle, chain.readable, 0, chain.head)

    def _print(self, handle: int, size: int, printed: int, data: bytes) -> None:
        """Print the next bytes of a chain, and ask for those behind them."""
        if data:
            self._effects.append(HostOutput(data))
        printed += len(data)
        if printed < size:
            self._open[handle] = size, printed
            self._effects.append(ChainRead(handle, printed, min(size - printed, READ_SIZE)))
        else:
            self._use(handle, 0)

    def memory(self, now: int, tag: int, data: bytes | None) -> None:
        """See MemoryModel."""
        found = self._open.pop(tag, None)
        if found is not None and data:
            self._print(tag, *found, data)

    # --- Input --------------------------------------------------------------------------------------------

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel."""
        accepted = used = 0
        left = data[:MOST_INPUT]
        while left and self._waiting and used < BATCH and not self._status & NEEDS_RESET:
            handle = next(iter(self._waiting))
            piece = left[: self._waiting.pop(handle)]
            self._effects.append(ChainWrite(handle, 0, piece))
            self._use(handle, len(piece))
            left = left[len(piece) :]
            accepted += len(piece)
            used += 1
        if accepted < len(data):
            self._starved = True
            self._tell_room()
        return accepted

    def _tell_room(self) -> None:
        if self._starved and self._waiting:
            self._starved = False
            self._effects.append(InputRoom(min(sum(self._waiting.values()), MOST_INPUT)))

    # --- State --------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        self._waiting.clear()
        self._open.clear()

    def _forget_queue(self, index: int) -> None:
        (self._waiting if index == INPUT else self._open).clear()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        parts = [super().snapshot(), _FIXED.pack(self._starved, len(self._waiting))]
        parts += [_WAITING.pack(*one) for one in self._waiting.items()]
        parts += [_OPEN.pack(handle, *one) for handle, one in self._open.items()]
        return b"".join(parts)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        queues, behind = self._restored(state)
        if len(behind) < _FIXED.size:
            raise SnapshotError("a console without its state")
        starved, count = _FIXED.unpack_from(behind)
        end = _FIXED.size + count * _WAITING.size
        if len(behind) < end or (len(behind) - end) % _OPEN.size:
            raise SnapshotError(f"{len(behind)} bytes of chains, {count} of them for input")
        waiting = dict(_WAITING.iter_unpack(behind[_FIXED.size : end]))
        opened = {handle: (size, at) for handle, size, at in _OPEN.iter_unpack(behind[end:])}
        if len(waiting) > DEPTH or len(opened) > DEPTH:
            raise SnapshotError("more chains than it may have")
        if (len(waiting), len(opened)) != (count, (len(behind) - end) // _OPEN.size):
            raise SnapshotError("a chain that it has twice")
        if not all(waiting.values()) or not all(at < size <= MOST_OUTPUT for size, at in opened.values()):
            raise SnapshotError("a chain of a size that none has")
        self._become(state, queues)
        self._starved, self._waiting, self._open = starved, waiting, opened
