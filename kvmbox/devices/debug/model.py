"""Models without time: byte ports and nothing else. The debug console, POST, debug-exit and shutdown."""

from __future__ import annotations

from kvmbox.base.layout import DEBUG_EXIT_PORT_COUNT
from kvmbox.contract.model import HostOutput, Stop
from kvmbox.contract.port_model import PortModel
from kvmbox.contract.stop_values import SHUTDOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class DebugCon(PortModel):
    """The debug console of Bochs (port 0xE9) and of SeaBIOS (port 0x402): a written byte goes to the host.

    Reading gives 0xE9, by which guests tell that the console is there. The bus maps the one port at each of
    the console's addresses. It has no state.

    >>> model = DebugCon()
    >>> hex(model.read(0, 0, 1))
    '0xe9'
    >>> model.write(0, 0, 1, ord("!"))
    >>> model.take_effects()
    [HostOutput(data=b'!')]
    """

    __slots__ = ()

    magic: bytes = b"DCN\x01"

    def _read_byte(self, offset: int) -> int:
        return DEBUGCON_READBACK

    def _write_byte(self, offset: int, value: int) -> None:
        self._effects.append(HostOutput(bytes((value,))))

    def write_run(self, now: int, offset: int, data: bytes) -> None:
        """See RunModel."""
        if offset == 0:
            self._effects.append(HostOutput(data))


DEBUGCON_READBACK: Final = 0xE9


class PostPort(PortModel):
    """The POST diagnostics port 0x80: a latch that keeps the last code written and reads back as that.

    Guests also write to it to pass the time (an `outb` is about a microsecond on a real ISA bus). The code is
    0 until the first write, and after a reset.

    >>> model = PostPort()
    >>> model.write(0, 0, 1, 0x5A)
    >>> hex(model.read(0, 0, 1))
    '0x5a'
    """

    __slots__ = ()

    magic: bytes = b"PST\x01"
    state_count: int = 256

    def _read_byte(self, offset: int) -> int:
        return self._state

    def _write_byte(self, offset: int, value: int) -> None:
        self._state = value


class DebugExit(PortModel):
    """The debug-exit device (QEMU's isa-debug-exit): a write to any of its four ports ends the run.

    The exit status, ((value << 1) | 1) & 0xff, is computed by the VMM from the value that it forwarded:
    `Stop` carries none. Reading gives 0, as in QEMU. It has no state.

    >>> model = DebugExit()
    >>> model.write(0, 0, 4, 0x10)
    >>> model.take_effects()
    [Stop()]
    """

    __slots__ = ()

    magic: bytes = b"DEX\x01"
    port_count: int = DEBUG_EXIT_PORT_COUNT

    def _read_byte(self, offset: int) -> int:
        return 0

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. One `Stop` for one write, whatever its size."""
        if 0 <= offset < self.port_count and size in (1, 2, 4):
            self._effects.append(Stop())


class ShutdownPort(PortModel):
    """The shutdown port 0x8900 of Bochs: the bytes "Shutdown", one after the other, stop the machine.

    A byte out of order begins the match anew, and is itself the beginning if it is an "S". The port is
    write-only: reading gives all ones. The state is how many bytes have matched.

    >>> model = ShutdownPort()
    >>> for letter in b"Shutdown":
    ...     model.write(0, 0, 1, letter)
    >>> model.take_effects()
    [Stop()]
    """

    __slots__ = ()

    magic: bytes = b"SHD\x01"
    state_count: int = 8

    def _read_byte(self, offset: int) -> int:
        return 0xFF

    def _write_byte(self, offset: int, value: int) -> None:
        if value != SHUTDOWN[self._state]:
            self._state = 1 if value == SHUTDOWN[0] else 0
            return
        self._state += 1
        if self._state == len(SHUTDOWN):
            self._state = 0
            self._effects.append(Stop())
