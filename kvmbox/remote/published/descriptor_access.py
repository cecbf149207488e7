"""The accesses to a device with rings of descriptors.

A write that may publish a ring is noted and made at once, under the lock of the channel: nothing of the ring
comes in between, so that the device and the VMM agree about its head.
"""

from __future__ import annotations

from typing import Any, Final

from kvmbox.devices.e1000.model import IODATA
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.effect_calls import FollowUp
from kvmbox.remote.published.descriptor_notes import NOTED
from kvmbox.remote.published.queue_access import QueueAccess
from kvmbox.remote.published.queues import DeviceQueues
from kvmbox.wire import protocol
from kvmbox.wire.protocol import request_word

_WORD: Final = 4
SIZES: Final = (_WORD, 2 * _WORD)


class DescriptorAccess(QueueAccess):
    """Accesses of 4 bytes, or of 8, which are two of these."""

    def __init__(self, channel: Channel, index: int, queues: DeviceQueues, size: int) -> None:
        super().__init__(channel, index, queues, _WORD)
        self.noted = NOTED if size == _WORD else range(IODATA)
        self.size = size

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """See QueueAccess. Raises DeviceProcessError."""
        kind = word & 0xFF
        if self.size == _WORD:
            return self._access(kind, offset, value)
        low = self._access(kind, offset, value & 0xFFFF_FFFF)
        return low | self._access(kind, offset + _WORD, value >> 32) << 32

    def _access(self, kind: int, offset: int, value: int) -> int:
        if kind != protocol.WRITE or offset not in NOTED or self.channel.failure is not None:
            limit = 0 if kind == protocol.WRITE else 0xFFFF_FFFF
            return self.channel.access(request_word(kind, self.index, _WORD), offset, value, limit)

        def under_lock() -> list[Any]:
            self.queues.note(offset, value)
            return [FollowUp(kind, self.index, value, offset, size=_WORD)]

        self.channel.serve(under_lock)
        return 0
