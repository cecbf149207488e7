"""The shutdown port 0x8900 of Bochs: the bytes "Shutdown", written one after the other, stop the machine.

A byte out of order begins the match anew, and is itself the beginning if it is an "S".
"""

from __future__ import annotations

from kvmbox.devices.model import SnapshotError, Stop
from kvmbox.devices.timeless import TimelessModel, check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SHUTDOWN: Final = b"Shutdown"
_SNAPSHOT_MAGIC: Final = b"SHD\x01"


class ShutdownPort(TimelessModel):
    """The port. It is write-only: reading gives all ones."""

    __slots__ = ("_matched",)

    def __init__(self) -> None:
        super().__init__()
        self._matched = 0  # leading bytes of SHUTDOWN seen, 0..7

    def _read_byte(self, offset: int) -> int:
        return 0xFF

    def _write_byte(self, offset: int, value: int) -> None:
        if value != SHUTDOWN[self._matched]:
            self._matched = 1 if value == SHUTDOWN[0] else 0
            return
        self._matched += 1
        if self._matched == len(SHUTDOWN):
            self._matched = 0
            self._effects.append(Stop())

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._matched = 0

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT_MAGIC + bytes((self._matched,))

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, len(_SNAPSHOT_MAGIC) + 1)
        if state[-1] >= len(SHUTDOWN):
            raise SnapshotError(f"shutdown port cannot have matched {state[-1]} bytes")
        self._matched = state[-1]
        self._effects = []
