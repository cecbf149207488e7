"""The reset control register, port 0xCF9 (Intel ICH9 datasheet, section 13.7.5, RST_CNT).

The port is in the middle of the four of PCI's address register, 0xCF8. An access of four bytes there is one
to that register, not to this one, and a guest that looks for PCI makes it: so this model has all four ports,
and answers as a PC without PCI does to what is not its own.
"""

from __future__ import annotations

from kvmbox.contract.model import Reset, SnapshotError
from kvmbox.contract.port_model import PortModel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

RST_CNT: Final = 1  # the offset of 0xCF9

SYS_RST: Final = 1 << 1
RST_CPU: Final = 1 << 2
FULL_RST: Final = 1 << 3


class ResetControl(PortModel):
    """Bit 2 going from 0 to 1 resets the machine; bits 1 and 3 say how, which makes no difference here.

    All three read back. The state is the register, 0 at power-on and after a reset.

    >>> model = ResetControl()
    >>> model.write(0, 1, 1, 0x02)
    >>> model.write(0, 1, 1, 0x06)
    >>> model.take_effects()
    [Reset()]
    """

    __slots__ = ()

    magic: bytes = b"RCT\x01"
    port_count: int = 4
    state_count: int = 16

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Accesses that are not of the one byte give ones."""
        return self._state if (offset, size) == (RST_CNT, 1) else (1 << 8 * size) - 1

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        if (offset, size) != (RST_CNT, 1):
            return
        before = self._state
        self._state = value & (SYS_RST | RST_CPU | FULL_RST)
        if self._state & ~before & RST_CPU:
            self._effects.append(Reset())

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        before = self._state
        super().restore(state)
        if self._state & 1:
            self._state = before
            raise SnapshotError("bit 0 of the reset control register is never set")
