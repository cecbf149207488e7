"""Where the guest has published the rings of an Intel 82540EM, as it wrote that itself: its writes
to the registers are noted before the device process sees them.

A ring is where its registers say, as long as RCTL or TCTL enables it. It is taken back when one of these
registers is written, when it is disabled, and when the device is reset. Its head moves with each descriptor
that goes back. RCTL also says how large the buffers of received frames are.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

from kvmbox.devices.e1000.model import (
    BAH,
    CONTROLS,
    CTRL,
    DESCRIPTOR_SIZE,
    ENABLE,
    HEAD,
    IOADDR,
    IODATA,
    LEN,
    LEN_BITS,
    RECEIVED,
    RESET,
    RINGS,
    TAIL,
    buffer_size,
)

_FIELDS: Final = (0, BAH, LEN, HEAD, TAIL)
_KEPT: Final = (*CONTROLS, IOADDR, *(ring + field for ring in RINGS for field in _FIELDS))
NOTED: Final = frozenset((CTRL, IODATA, *_KEPT))
"""The registers whose writes are noted, all of 4 bytes."""
_MASKS: Final = {LEN: LEN_BITS, HEAD: 0xFFFF, TAIL: 0xFFFF}
_STATE: Final = Struct(f"<{len(_KEPT)}I")


class RingWatch:
    """What the guest has written of both rings. Pure."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """See Watch."""
        self._values = dict.fromkeys(_KEPT, 0)

    def published(self, index: int) -> tuple[int, int, int, int]:
        """Entries, address and head of a ring; of 0 entries if it is not enabled."""
        ring = RINGS[index]
        if not self._values[CONTROLS[index]] & ENABLE:
            return 0, 0, 0, 0
        base = (self._values[ring] | self._values[ring + BAH] << 32) & ~15
        return self._values[ring + LEN] // DESCRIPTOR_SIZE, base, self._values[ring + HEAD], 0

    def tail(self, index: int) -> int:
        """The first descriptor that the device does not have."""
        return self._values[RINGS[index] + TAIL]

    @property
    def buffer_size(self) -> int:
        """How many bytes a buffer for received frames has."""
        return buffer_size(self._values[CONTROLS[RECEIVED]])

    def moved(self, index: int, head: int) -> None:
        """A descriptor has gone back: the ring begins at `head` now."""
        self._values[RINGS[index] + HEAD] = head

    def resets(self, offset: int, value: int, size: int) -> bool:
        """See Watch."""
        return self._meant(offset) == CTRL and bool(value & RESET)

    def _meant(self, offset: int) -> int:
        """The register of an access, which may be one through the ports."""
        return self._values[IOADDR] if offset == IODATA else offset

    def write(self, offset: int, value: int, size: int = 4) -> Sequence[int]:
        """See Watch."""
        if self.resets(offset, value, size):
            self.forget()
            return range(len(RINGS))
        offset = self._meant(offset)
        if offset not in self._values:
            return ()
        ring = offset & ~0xFF
        self._values[offset] = value & _MASKS.get(offset - ring if ring in RINGS else 0, 0xFFFF_FFFF)
        if offset in CONTROLS:
            return () if value & ENABLE else (CONTROLS.index(offset),)
        return (RINGS.index(ring),) if ring in RINGS and offset - ring != TAIL else ()

    def state(self) -> bytes:
        """See Watch."""
        return _STATE.pack(*self._values.values())

    @property
    def state_size(self) -> int:
        """See Watch."""
        return _STATE.size

    def restore(self, state: bytes) -> None:
        """See Watch."""
        self._values = dict(zip(_KEPT, _STATE.unpack(state), strict=True))
