"""Models without time: byte ports and nothing else. The debug console, POST, debug-exit and shutdown.

`PortModel` has what they share of the device contract (see model.py). A model gives `_read_byte` and
`_write_byte`, and says how many ports it has. Wider accesses are taken apart, low byte first, as the bus
does it.
"""

from __future__ import annotations

from kvmbox.base.layout import DEBUG_EXIT_PORT_COUNT
from kvmbox.contract.model import HostOutput, SnapshotError, Stop, TimelessModel
from kvmbox.contract.stop_values import SHUTDOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final


class PortModel(TimelessModel):
    """Base of models of byte ports.

    The state that a model here may have is one number below `state_count`, 0 at power-on and after a reset.
    A snapshot is `magic` (name and version), and that number as a byte if there is one.
    """

    __slots__ = ("_state",)

    port_count: int = 1
    magic: bytes = b""
    state_count: int = 0

    def __init__(self) -> None:
        super().__init__()
        self._state = 0

    def _read_byte(self, offset: int) -> int:
        """What the guest reads at `offset`, which is one of the model's ports."""
        raise NotImplementedError

    def _write_byte(self, offset: int, value: int) -> None:
        """The guest writes `value`, 0..255, at `offset`, which is one of the model's ports."""
        raise NotImplementedError

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel. Offsets beyond the ports give ones; a size that no access has gives 0."""
        if size == 1:
            return self._read_byte(offset) if 0 <= offset < self.port_count else 0xFF
        value = 0
        for position in range(size if size in (2, 4, 8) else 0):
            value |= self.read(now, offset + position, 1) << 8 * position
        return value

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel. Offsets beyond the ports and sizes that no access has drop the value."""
        if size == 1:
            if 0 <= offset < self.port_count:
                self._write_byte(offset, value & 0xFF)
            return
        for position in range(size if size in (2, 4, 8) else 0):
            self.write(now, offset + position, 1, value >> 8 * position)

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._state = 0

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return self.magic + bytes((self._state,)) if self.state_count else self.magic

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, self.magic, len(self.magic) + (self.state_count > 0))
        if self.state_count:
            if state[-1] >= self.state_count:
                raise SnapshotError(f"a state of {state[-1]}, below {self.state_count} it can be")
            self._state = state[-1]
        self._effects = []


def check_snapshot(state: bytes, magic: bytes, size: int) -> None:
    """Raise SnapshotError unless `state` has `size` bytes and begins with `magic` (name and version)."""
    if len(state) != size or not state.startswith(magic):
        raise SnapshotError(f"not a snapshot of this model and version ({magic!r}, {size} bytes)")


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
