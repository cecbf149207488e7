"""The POST diagnostics port 0x80: a latch that keeps the last code written and reads back as that.

Guests also write to it to pass the time (an `outb` is about a microsecond on a real ISA bus).
"""

from __future__ import annotations

from kvmbox.devices.timeless import TimelessModel, check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_SNAPSHOT_MAGIC: Final = b"PST\x01"


class PostPort(TimelessModel):
    """The latch. 0 until the first write, and after a reset."""

    __slots__ = ("_code",)

    def __init__(self) -> None:
        super().__init__()
        self._code = 0

    def _read_byte(self, offset: int) -> int:
        return self._code

    def _write_byte(self, offset: int, value: int) -> None:
        self._code = value

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._code = 0

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT_MAGIC + bytes((self._code,))

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, len(_SNAPSHOT_MAGIC) + 1)
        self._code = state[-1]
        self._effects = []
