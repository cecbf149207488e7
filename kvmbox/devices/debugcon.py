"""The debug console of Bochs (port 0xE9) and of SeaBIOS (port 0x402): a byte written comes out on the host.

Reading gives 0xE9, by which guests tell that the console is there.
"""

from __future__ import annotations

from kvmbox.devices.model import HostOutput
from kvmbox.devices.timeless import TimelessModel, check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

READBACK: Final = 0xE9
_SNAPSHOT_MAGIC: Final = b"DCN\x01"


class DebugCon(TimelessModel):
    """One port; the bus maps it at each of the console's addresses. It has no state."""

    __slots__ = ()

    def _read_byte(self, offset: int) -> int:
        return READBACK

    def _write_byte(self, offset: int, value: int) -> None:
        self._effects.append(HostOutput(bytes((value,))))

    def reset(self, now: int) -> None:
        """See DeviceModel."""

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT_MAGIC

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, len(_SNAPSHOT_MAGIC))
        self._effects = []
