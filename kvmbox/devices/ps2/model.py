"""The 8042 keyboard controller with a PS/2 keyboard and a PS/2 mouse, and system control port A (0x92).

Theory of operation
-------------------
Offset 0 is port 0x60 (data), 1 is port 0x64 (status; commands), 2 is port 0x92. A command is done within its
write, so IBF is never seen set.

*Output buffer.* It holds one byte, and OBF is set until port 0x60 is read. Bytes of the keyboard
(`keyboard.py`) and of the mouse (`mouse.py`) wait until it is empty; if both wait, they take turns.
An answer of the controller to a command waits for a byte of a device, goes before the next one, and replaces
an older answer that was not read. So no byte of a device is lost, and after a read the next byte is there at
once. The line falls and rises between them: each byte is an edge for the 8259. A byte takes no time, as in
QEMU; a real device needs about a millisecond. Only between a press and a release of keys, and between packets
of the mouse, is there time, with a deadline.

*Clocks.* While bit 4 of the command byte is set (command 0xAD), the keyboard's clock is held: its bytes stay
where they are. Bit 5 (0xA7) holds the mouse's. A byte that the guest sends to the device releases its clock.
With bit 6, bytes of the keyboard are translated from scan code set 2 to set 1 on their way to the output
buffer: a break prefix (0xF0) and the code after it become one byte. All of its bytes are translated, also
answers.

*Host input* are changes of keys, one byte each (`Ps2Keyboard.press`), and events of the mouse, which begin
with a byte that no key has (`mouse.EVENT`). A device takes them while it listens, its clock is not held
and they fit. When input was refused, InputRoom follows as soon as some fits again.

    pin 0   IRQ 1: OBF with a byte of the controller or the keyboard, if bit 0 of the command byte allows it
            and bit 4 is clear (as in QEMU: a driver that disables the keyboard polls)
    pin 1   IRQ 12: OBF with a byte of the mouse, if bit 1 allows it

*Power-on.* No firmware runs before most guests, so the controller starts as a BIOS leaves it: self-test
passed, command byte 0x65 (translation, IRQ 1, the mouse's clock held), the keyboard scans. A driver that only
reads port 0x60 gets set 1.

A20 is kept as a bit in both places (output port bit 1, port 0x92 bit 1), and has no effect: the address line
is always on. `Reset` follows from 0xFE and any other pulse of output bit 0 (commands 0xF0..0xFF), from an
output port written with bit 0 clear, and from port 0x92 when bit 0 goes from 0 to 1.
"""

from __future__ import annotations

import struct

from kvmbox.contract.model import NANOSECONDS, InputRoom, IrqLine, Reset, SnapshotError, steady_for
from kvmbox.contract.port_model import PortModel, check_snapshot
from kvmbox.devices.ps2 import keyboard, mouse
from kvmbox.devices.ps2.keyboard import BREAK, RELEASED, TRANSLATED, Ps2Keyboard
from kvmbox.devices.ps2.mouse import EVENT, EVENT_MARK, Ps2Mouse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DATA: Final = 0
STATUS: Final = 1  # command when written
PORT_92: Final = 2

# Status register.
ST_OBF: Final = 0x01  # output buffer full
ST_SYS: Final = 0x04  # system flag: self-test passed, or set through the command byte
ST_CD: Final = 0x08  # the last write was a command
ST_UNLOCKED: Final = 0x10  # no key lock
ST_AUX_OBF: Final = 0x20  # the byte in the output buffer is the mouse's

# Command byte.
CB_INT: Final = 0x01
CB_INT2: Final = 0x02
CB_SYS: Final = 0x04
CB_DISABLE: Final = 0x10
CB_DISABLE2: Final = 0x20
CB_XLATE: Final = 0x40
_CB_POWER_ON: Final = CB_INT | CB_SYS | CB_DISABLE2 | CB_XLATE

# Commands.
READ_COMMAND_BYTE: Final = 0x20
WRITE_COMMAND_BYTE: Final = 0x60
DISABLE_AUX: Final = 0xA7
ENABLE_AUX: Final = 0xA8
TEST_AUX: Final = 0xA9
SELF_TEST: Final = 0xAA
TEST_KEYBOARD: Final = 0xAB
DISABLE_KEYBOARD: Final = 0xAD
ENABLE_KEYBOARD: Final = 0xAE
READ_INPUT_PORT: Final = 0xC0
READ_OUTPUT_PORT: Final = 0xD0
WRITE_OUTPUT_PORT: Final = 0xD1
WRITE_KEYBOARD_BUFFER: Final = 0xD2
WRITE_AUX_BUFFER: Final = 0xD3
WRITE_AUX: Final = 0xD4
DISABLE_A20: Final = 0xDD
ENABLE_A20: Final = 0xDF
PULSE_OUTPUT: Final = 0xF0  # and up: each clear bit of the low four is pulsed
_WITH_DATA: Final = frozenset(
    {WRITE_COMMAND_BYTE, WRITE_OUTPUT_PORT, WRITE_KEYBOARD_BUFFER, WRITE_AUX_BUFFER, WRITE_AUX}
)

# Output port.
P2_RESET: Final = 0x01  # low: the processor is in reset
P2_A20: Final = 0x02
P2_OBF: Final = 0x10
P2_AUX_OBF: Final = 0x20
_P2_POWER_ON: Final = 0xCC | P2_RESET | P2_A20

INPUT_PORT: Final = 0x80  # no key lock
SELF_TEST_PASSED: Final = 0x55

# Port 0x92.
P92_RESET: Final = 0x01
P92_A20: Final = 0x02

_SNAPSHOT: Final = struct.Struct("<4s6B2BBQ")
_SNAPSHOT_MAGIC: Final = b"KBC\x04"
_MOUSE_AT: Final = _SNAPSHOT.size + keyboard.STATE_SIZE
_SNAPSHOT_SIZE: Final = _MOUSE_AT + mouse.STATE_SIZE
_KEYS_REFUSED: Final = 0x01
_EVENTS_REFUSED: Final = 0x02
_ANSWER_WAITS: Final = 0x04
_FROM_KEYBOARD: Final = 0x08
_FROM_MOUSE: Final = 0x10
_MOUSE_FIRST: Final = 0x20
_FLAGS: Final = 0x3F
_LAST_NOW: Final = (1 << 63) - 1
_NEVER: Final = 1 << 64
_STATUS_BITS: Final = ST_OBF | ST_SYS | ST_CD | ST_UNLOCKED | ST_AUX_OBF


class I8042(PortModel):
    """The controller, its keyboard and port 0x92; see the module's theory of operation.

    Command 0xfe pulses the processor's reset line:

    >>> model = I8042()
    >>> model.write(0, 1, 1, 0xFE)
    >>> model.take_effects()
    [Reset()]

    Key 31, the A, is pressed:

    >>> model.receive(0, bytes([31]))
    1
    >>> model.take_effects(), hex(model.read(0, 0, 1))
    ([IrqLine(pin=0, level=1, coalesced=0)], '0x1e')
    """

    __slots__ = (
        "_answer",
        "_command",
        "_command_byte",
        "_keyboard",
        "_lines",
        "_mouse",
        "_mouse_first",
        "_now",
        "_output",
        "_output_port",
        "_port_92",
        "_refused",
        "_source",
        "_status",
    )

    port_count = 3

    def __init__(self) -> None:
        super().__init__()
        self._keyboard = Ps2Keyboard()
        self._mouse = Ps2Mouse()
        self._refused = 0  # _KEYS_REFUSED, _EVENTS_REFUSED
        self._lines = 0  # bit per pin
        self._now = 0
        self._power_on()

    def _power_on(self) -> None:
        self._status = ST_UNLOCKED | ST_SYS
        self._command_byte = _CB_POWER_ON
        self._command = 0  # the command that waits for its data byte; 0 for none
        self._output = 0
        self._source = 0  # of the byte in the output buffer: _FROM_KEYBOARD, _FROM_MOUSE; 0: the controller
        self._mouse_first = False  # whether it is the mouse's turn
        self._answer: tuple[int, int] | None = None  # what waits for the output buffer: value and kind
        self._output_port = _P2_POWER_ON
        self._port_92 = P92_A20

    # --- The guest ----------------------------------------------------------------------------------------

    def read(self, now: int, offset: int, size: int) -> int:
        """See DeviceModel."""
        self.advance(now)
        return super().read(now, offset, size)

    def write(self, now: int, offset: int, size: int, value: int) -> None:
        """See DeviceModel."""
        self.advance(now)
        super().write(now, offset, size, value)

    def steady(self, offset: int, size: int, value: int) -> int:
        """See SteadyModel. Status and port 92 stay: at the deadline a byte of the keyboard may come."""
        return steady_for(NANOSECONDS) if size == 1 and offset in (STATUS, PORT_92) else 0

    def _read_byte(self, offset: int) -> int:
        if offset == STATUS:
            return self._status
        if offset == PORT_92:
            return self._port_92
        value = self._output
        if self._status & ST_OBF:
            self._status &= ~(ST_OBF | ST_AUX_OBF)
            if self._source:
                (self._keyboard if self._source == _FROM_KEYBOARD else self._mouse).was_read(self._now)
            self._source = 0
            self._drive_lines()
            self._fill()
        return value

    def _write_byte(self, offset: int, value: int) -> None:
        if offset == STATUS:
            self._status |= ST_CD
            self._do_command(value)
        elif offset == DATA:
            self._status &= ~ST_CD
            self._take_data(value)
        else:
            if value & ~self._port_92 & P92_RESET:
                self._effects.append(Reset())
            self._port_92 = value

    def _do_command(self, command: int) -> None:
        self._command = command if command in _WITH_DATA else 0
        if command >= PULSE_OUTPUT:
            if not command & P2_RESET:
                self._effects.append(Reset())
        elif command == READ_COMMAND_BYTE:
            self._say(self._command_byte)
        elif command == SELF_TEST:
            self._status |= ST_SYS
            self._say(SELF_TEST_PASSED)
        elif command in (TEST_KEYBOARD, TEST_AUX):
            self._say(0x00)
        elif command == DISABLE_KEYBOARD:
            self._set_command_byte(self._command_byte | CB_DISABLE)
        elif command == ENABLE_KEYBOARD:
            self._set_command_byte(self._command_byte & ~CB_DISABLE)
        elif command == DISABLE_AUX:
            self._set_command_byte(self._command_byte | CB_DISABLE2)
        elif command == ENABLE_AUX:
            self._set_command_byte(self._command_byte & ~CB_DISABLE2)
        elif command == READ_INPUT_PORT:
            self._say(INPUT_PORT)
        elif command == READ_OUTPUT_PORT:
            full = P2_OBF if self._status & ST_OBF else 0
            aux = P2_AUX_OBF if self._status & ST_AUX_OBF else 0
            self._say(self._output_port | full | aux)
        elif command == ENABLE_A20:
            self._output_port |= P2_A20
        elif command == DISABLE_A20:
            self._output_port &= ~P2_A20

    def _take_data(self, value: int) -> None:
        command = self._command
        self._command = 0
        if command == WRITE_COMMAND_BYTE:
            self._status = self._status & ~ST_SYS | (ST_SYS if value & CB_SYS else 0)
            self._set_command_byte(value)
        elif command == WRITE_OUTPUT_PORT:
            if not value & P2_RESET:
                self._effects.append(Reset())
            self._output_port = value & ~(P2_OBF | P2_AUX_OBF)
        elif command == WRITE_KEYBOARD_BUFFER:
            self._say(value)
        elif command == WRITE_AUX_BUFFER:
            self._say(value, ST_AUX_OBF)
        elif command == WRITE_AUX:
            self._mouse.write(value)
            self._set_command_byte(self._command_byte & ~CB_DISABLE2)
        else:
            self._keyboard.write(value)
            self._set_command_byte(self._command_byte & ~CB_DISABLE)

    # --- The output buffer and what depends on it -----------------------------------------------------------

    def _say(self, value: int, kind: int = 0) -> None:
        """An answer of the controller; `kind` is ST_AUX_OBF for one that looks like the mouse's, or 0."""
        self._answer = value, kind
        self._fill()

    def _set_command_byte(self, value: int) -> None:
        self._command_byte = value
        self._drive_lines()
        self._fill()

    def _fill(self) -> None:
        """Put the next byte into the output buffer, if there is one and it may go there now."""
        if self._answer is not None and not self._source:
            self._put(*self._answer)
            self._answer = None
        elif not self._status & ST_OBF:
            keyboard, mouse = self._keyboard_due() <= self._now, self._mouse_due() <= self._now
            if mouse and (self._mouse_first or not keyboard):
                self._source = _FROM_MOUSE
                self._mouse_first = False
                self._put(self._mouse.take(), ST_AUX_OBF)
            elif keyboard:
                self._source = _FROM_KEYBOARD
                self._mouse_first = True
                self._put(self._byte_of_keyboard(), 0)
        if self._refused:
            room = max(self._room(_KEYS_REFUSED), self._room(_EVENTS_REFUSED))
            if room:
                self._refused = 0
                self._effects.append(InputRoom(room))

    def _put(self, value: int, kind: int) -> None:
        self._output = value
        self._status = self._status & ~ST_AUX_OBF | ST_OBF | kind
        self._drive_lines()

    def _room(self, refused: int) -> int:
        """How many bytes of an input that was refused are taken now."""
        if not self._refused & refused:
            return 0
        if refused == _KEYS_REFUSED:
            return 0 if self._command_byte & CB_DISABLE else self._keyboard.room
        return 0 if self._command_byte & CB_DISABLE2 else self._mouse.room

    def _keyboard_due(self) -> int:
        """When a byte of the keyboard goes to the output buffer; _NEVER if something must happen before."""
        if self._status & ST_OBF or self._command_byte & CB_DISABLE:
            return _NEVER
        due = self._keyboard.ready_at
        return _NEVER if due is None else due

    def _mouse_due(self) -> int:
        """The same of the mouse."""
        if self._status & ST_OBF or self._command_byte & CB_DISABLE2:
            return _NEVER
        due = self._mouse.ready_at
        return _NEVER if due is None else due

    def _byte_of_keyboard(self) -> int:
        value = self._keyboard.take()
        if not self._command_byte & CB_XLATE:
            return value
        # The code after a break prefix waits behind it: only an answer has no code, and passes as it is.
        if value == BREAK and self._keyboard.is_inside_change:
            return TRANSLATED[self._keyboard.take()] | RELEASED
        return TRANSLATED[value]

    def _drive_lines(self) -> None:
        lines = self._lines_wanted()
        for pin in (0, 1):
            level = lines >> pin & 1
            if level != self._lines >> pin & 1:
                self._effects.append(IrqLine(pin, level))
        self._lines = lines

    def _lines_wanted(self) -> int:
        if not self._status & ST_OBF:
            return 0
        if self._status & ST_AUX_OBF:
            return 2 if self._command_byte & CB_INT2 else 0
        return 1 if self._command_byte & (CB_INT | CB_DISABLE) == CB_INT else 0

    # --- The machine ----------------------------------------------------------------------------------------

    def advance(self, now: int) -> None:
        """See DeviceModel."""
        if now > self._now:
            self._now = min(now, _LAST_NOW)
            self._fill()

    def next_deadline(self) -> int | None:
        """See DeviceModel. When a key or a button has been as it is for long enough."""
        due = min(self._keyboard_due(), self._mouse_due())
        return None if due == _NEVER else due

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel and the module's text about host input."""
        self.advance(now)
        count = 0
        while count < len(data):
            size = EVENT.size if data[count] == EVENT_MARK else 1
            if not self._take_input(data[count : count + size], size):
                self._refused |= _KEYS_REFUSED if size == 1 else _EVENTS_REFUSED
                break
            count += size
        self._fill()
        return count

    def _take_input(self, data: bytes, size: int) -> bool:
        """A change of a key, or an event of the mouse of `size` bytes. False if it is not taken now."""
        if size == 1:
            return not self._command_byte & CB_DISABLE and self._keyboard.press(data[0])
        if len(data) < size or self._command_byte & CB_DISABLE2 or not self._mouse.event(data):
            return False
        self._fill()  # it may leave at once, and then the next one fits
        return True

    def reset(self, now: int) -> None:
        """See DeviceModel. Changes of keys and movements that the devices have taken are gone."""
        self.advance(now)
        self._power_on()
        self._keyboard.power_on()
        self._mouse.power_on()
        self._drive_lines()
        self._fill()  # there is room

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        value, kind = self._answer or (0, 0)
        flags = self._refused | self._source | (_MOUSE_FIRST if self._mouse_first else 0)
        if self._answer is not None:
            flags |= _ANSWER_WAITS
        return (
            _SNAPSHOT.pack(
                _SNAPSHOT_MAGIC,
                self._status,
                self._command_byte,
                self._command,
                self._output,
                self._output_port,
                self._port_92,
                value,
                kind,
                flags,
                self._now,
            )
            + self._keyboard.snapshot()
            + self._mouse.snapshot()
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, _SNAPSHOT_SIZE)
        _, status, command_byte, command, output, output_port, port_92, value, kind, flags, now = (
            _SNAPSHOT.unpack_from(state)
        )
        restored = I8042()
        restored._keyboard.restore(state[_SNAPSHOT.size : _MOUSE_AT])
        restored._mouse.restore(state[_MOUSE_AT:])
        restored._status = status
        restored._command_byte = command_byte
        restored._command = command
        restored._output = output
        restored._output_port = output_port
        restored._port_92 = port_92
        restored._source = flags & (_FROM_KEYBOARD | _FROM_MOUSE)
        restored._mouse_first = bool(flags & _MOUSE_FIRST)
        restored._answer = (value, kind) if flags & _ANSWER_WAITS else None
        restored._refused = flags & (_KEYS_REFUSED | _EVENTS_REFUSED)
        restored._now = now
        if (
            status & ~_STATUS_BITS
            or not status & ST_UNLOCKED
            or (command and command not in _WITH_DATA)
            or output_port & (P2_OBF | P2_AUX_OBF)
            or kind not in (0, ST_AUX_OBF)
            or flags & ~_FLAGS
            or (restored._answer is None and (value or kind))
            or not max(restored._keyboard.read_at, restored._mouse.read_at) <= now <= _LAST_NOW
            or not restored._is_settled()
        ):
            raise SnapshotError("8042 snapshot holds a state that the chip cannot have")
        restored._lines = restored._lines_wanted()
        for name in self.__slots__:
            setattr(self, name, getattr(restored, name))
        self._effects = []

    def _is_settled(self) -> bool:
        """Whether nothing goes to the output buffer now, and what is there has a source."""
        if self._status & ST_OBF:
            kinds = {0: (0, ST_AUX_OBF), _FROM_KEYBOARD: (0,), _FROM_MOUSE: (ST_AUX_OBF,)}
            if self._status & ST_AUX_OBF not in kinds.get(self._source, ()):
                return False
        elif self._source or self._status & ST_AUX_OBF:
            return False
        return (
            min(self._keyboard_due(), self._mouse_due()) > self._now
            and (self._answer is None or self._source != 0)
            and not self._room(_KEYS_REFUSED)
            and not self._room(_EVENTS_REFUSED)
        )
