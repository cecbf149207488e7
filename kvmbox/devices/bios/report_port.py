"""The port over which the built-in BIOS says what it does not provide.

Theory of operation
-------------------
Two registers of four bytes, written only. AT takes CS << 16 | IP of the instruction that asked; WHAT takes
kind << 24 | vector << 16 | AX and sends both to the VMM, as 8 bytes of host output. The VMM makes the
sentence. A kind of 0x80 or more ends the run. Any guest may write here: the VMM bounds what it says.

The state is AT.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import HostOutput, SnapshotError, Stop, TimelessModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

AT: Final = 0
WHAT: Final = 4

ENDING: Final = 0x80
"""The first kind that ends the run."""

REPORT: Final = struct.Struct("<II")
"""What goes to the VMM: AT and WHAT."""

_SNAPSHOT: Final = struct.Struct("<4sI")
_SNAPSHOT_MAGIC: Final = b"BRP\x01"


class BiosReport(TimelessModel):
    """See the module.

    >>> model = BiosReport()
    >>> model.write(0, AT, 4, 0x7C2E)
    >>> model.write(0, WHAT, 4, 0x00130802)
    >>> [effect.data.hex() for effect in model.take_effects()]
    ['2e7c000002081300']
    """

    __slots__ = ("_at",)

    def __init__(self) -> None:
        super().__init__()
        self._at = 0

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Nothing can be read."""
        return (1 << 8 * size) - 1 if size in (1, 2, 4, 8) else 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Registers are written whole; anything else is dropped."""
        if size != 4:
            return
        value &= 0xFFFF_FFFF
        if offset == AT:
            self._at = value
        elif offset == WHAT:
            self._effects.append(HostOutput(REPORT.pack(self._at, value)))
            if value >> 24 >= ENDING:
                self._effects.append(Stop())

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._at = 0

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(_SNAPSHOT_MAGIC, self._at)

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        if len(state) != _SNAPSHOT.size or not state.startswith(_SNAPSHOT_MAGIC):
            raise SnapshotError("no snapshot of a BIOS report of this version")
        _, self._at = _SNAPSHOT.unpack(state)
        self._effects = []
