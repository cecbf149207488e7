"""pvpanic: a port by which a guest tells how it fares (QEMU, docs/specs/pvpanic.rst).

Reading gives the events that are understood. A write of one of them is told to the host by `Stop`, which has
no value: the VMM looks at the value that it forwarded. It ends the run for a panic and for a shutdown, and
tells its user that a crash kernel takes over.
"""

from __future__ import annotations

from kvmbox.contract.model import Stop
from kvmbox.contract.port_model import PortModel
from kvmbox.contract.stop_values import CRASH_LOADED, PANIC_SHUTDOWN, PANICKED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

EVENTS: Final = PANICKED | CRASH_LOADED | PANIC_SHUTDOWN


class PvPanic(PortModel):
    """See the module. It has no state.

    >>> model = PvPanic()
    >>> model.read(0, 0, 1)
    7
    >>> model.write(0, 0, 1, 1)
    >>> model.take_effects()
    [Stop()]
    """

    __slots__ = ()

    magic: bytes = b"PVP\x01"

    def _read_byte(self, offset: int) -> int:
        return EVENTS

    def _write_byte(self, offset: int, value: int) -> None:
        if value & EVENTS:
            self._effects.append(Stop())
