"""The debug-exit device (QEMU's isa-debug-exit): a write to any of its ports ends the run.

The exit status, ((value << 1) | 1) & 0xff, is computed by the VMM from the value that it forwarded: `Stop`
carries none. A write of 2 or 4 bytes at offset 0 is one write. Reading gives 0, as in QEMU.
"""

from __future__ import annotations

from kvmbox.devices.model import Stop
from kvmbox.devices.timeless import TimelessModel, check_snapshot
from kvmbox.layout import DEBUG_EXIT_PORT_COUNT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_SNAPSHOT_MAGIC: Final = b"DEX\x01"


class DebugExit(TimelessModel):
    """Four ports that stop the machine. It has no state."""

    __slots__ = ()

    whole_sizes: frozenset[int] = frozenset({2, 4})
    port_count = DEBUG_EXIT_PORT_COUNT

    def _read_byte(self, offset: int) -> int:
        return 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. One `Stop` for one write, whatever its size."""
        if 0 <= offset < self.port_count and size in (1, 2, 4):
            self._effects.append(Stop())

    def reset(self, now: int) -> None:
        """See DeviceModel."""

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT_MAGIC

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, len(_SNAPSHOT_MAGIC))
        self._effects = []
