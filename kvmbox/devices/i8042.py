"""The 8042 keyboard controller with a PS/2 keyboard, and system control port A (0x92).

Theory of operation
-------------------
Offset 0 is port 0x60 (data), 1 is port 0x64 (status; commands), 2 is port 0x92. A command is done within its
write, so IBF is never seen set.

*Output buffer.* It holds one byte, and OBF is set until port 0x60 is read. Bytes of the keyboard
(`ps2_keyboard.py`) wait until it is empty. An answer of the controller to a command waits for a byte of
the keyboard, goes before the next one, and replaces an older answer that was not read. So no byte of the
keyboard is lost, and after a read the next byte is there at once. The line falls and rises between them:
each byte is an edge for the 8259. A byte takes no time, as in QEMU; a real keyboard needs about a
millisecond. Only between a press and a release of keys is there time (`ps2_keyboard`), with a deadline.

*Keyboard.* While bit 4 of the command byte is set (command 0xAD), the keyboard's clock is held: its bytes
stay where they are. A byte that the guest sends to the keyboard releases the clock. With bit 6, bytes of
the keyboard are translated from scan code set 2 to set 1 on their way to the output buffer: a break prefix
(0xF0) and the code after it become one byte. All bytes are translated, also answers.

*Host input* are changes of keys, one byte each (`Ps2Keyboard.press`). The keyboard takes them while it
scans, its clock is not held and they fit. When input was refused, InputRoom follows as soon as some fits
again.

There is no mouse. What the guest sends to it is answered as the chip answers for a device that does not
react: 0xFE in the output buffer with the time-out bit of the status set.

    pin 0   IRQ 1: OBF with a byte of the controller or the keyboard, if bit 0 of the command byte allows it
            and bit 4 is clear (as in QEMU: a driver that disables the keyboard polls)
    pin 1   IRQ 12: OBF with auxiliary data, if bit 1 allows it

*Power-on.* No firmware runs before most guests, so the controller starts as a BIOS leaves it: self-test
passed, command byte 0x65 (translation, IRQ 1, no mouse), scanning. A driver that only reads port 0x60 gets
set 1.

A20 is kept as a bit in both places (output port bit 1, port 0x92 bit 1), and has no effect: the address line
is always on. `Reset` follows from 0xFE and any other pulse of output bit 0 (commands 0xF0..0xFF), from an
output port written with bit 0 clear, and from port 0x92 when bit 0 goes from 0 to 1.
"""

from __future__ import annotations

import struct

from kvmbox.devices import ps2_keyboard
from kvmbox.devices.model import NANOSECONDS, InputRoom, IrqLine, Reset, SnapshotError, steady_for
from kvmbox.devices.port_models import PortModel, check_snapshot
from kvmbox.devices.ps2_keyboard import BREAK, RELEASED, TRANSLATED, Ps2Keyboard

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
ST_AUX_OBF: Final = 0x20  # the byte in the output buffer is the auxiliary device's
ST_TIMEOUT: Final = 0x40  # the device did not react

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
RESEND: Final = 0xFE

# Port 0x92.
P92_RESET: Final = 0x01
P92_A20: Final = 0x02

_SNAPSHOT: Final = struct.Struct("<4s6B2BBQ")
_SNAPSHOT_MAGIC: Final = b"KBC\x03"
_SNAPSHOT_SIZE: Final = _SNAPSHOT.size + ps2_keyboard.STATE_SIZE
_INPUT_REFUSED: Final = 0x01
_ANSWER_WAITS: Final = 0x02
_FROM_KEYBOARD: Final = 0x04
_FLAGS: Final = _INPUT_REFUSED | _ANSWER_WAITS | _FROM_KEYBOARD
_LAST_NOW: Final = (1 << 63) - 1
_NEVER: Final = 1 << 64
_STATUS_BITS: Final = ST_OBF | ST_SYS | ST_CD | ST_UNLOCKED | ST_AUX_OBF | ST_TIMEOUT


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
        "_from_keyboard",
        "_input_refused",
        "_keyboard",
        "_lines",
        "_now",
        "_output",
        "_output_port",
        "_port_92",
        "_status",
    )

    port_count = 3

    def __init__(self) -> None:
        super().__init__()
        self._keyboard = Ps2Keyboard()
        self._input_refused = False
        self._lines = 0  # bit per pin
        self._now = 0
        self._power_on()

    def _power_on(self) -> None:
        self._status = ST_UNLOCKED | ST_SYS
        self._command_byte = _CB_POWER_ON
        self._command = 0  # the command that waits for its data byte; 0 for none
        self._output = 0
        self._from_keyboard = False  # whether OBF is set for a byte of the keyboard
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
            self._status &= ~(ST_OBF | ST_AUX_OBF | ST_TIMEOUT)
            if self._from_keyboard:
                self._keyboard.was_read(self._now)
            self._from_keyboard = False
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
            self._command_byte |= CB_DISABLE2
        elif command == ENABLE_AUX:
            self._command_byte &= ~CB_DISABLE2
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
            self._say(RESEND, ST_AUX_OBF | ST_TIMEOUT)
        else:
            self._keyboard.write(value)
            self._set_command_byte(self._command_byte & ~CB_DISABLE)

    # --- The output buffer and what depends on it -----------------------------------------------------------

    def _say(self, value: int, kind: int = 0) -> None:
        """An answer of the controller; `kind` is ST_AUX_OBF, with or without ST_TIMEOUT, or 0."""
        self._answer = value, kind
        self._fill()

    def _set_command_byte(self, value: int) -> None:
        self._command_byte = value
        self._drive_lines()
        self._fill()

    def _fill(self) -> None:
        """Put the next byte into the output buffer, if there is one and it may go there now."""
        if self._answer is not None and not self._from_keyboard:
            self._output, kind = self._answer
            self._answer = None
            self._status = self._status & ~(ST_AUX_OBF | ST_TIMEOUT) | ST_OBF | kind
            self._drive_lines()
        elif self._keyboard_due() <= self._now:
            self._output = self._byte_of_keyboard()
            self._from_keyboard = True
            self._status |= ST_OBF
            self._drive_lines()
        if self._input_refused:
            room = 0 if self._command_byte & CB_DISABLE else self._keyboard.room
            if room:
                self._input_refused = False
                self._effects.append(InputRoom(room))

    def _keyboard_due(self) -> int:
        """When a byte of the keyboard goes to the output buffer; _NEVER if something must happen before."""
        if self._status & ST_OBF or self._command_byte & CB_DISABLE:
            return _NEVER
        due = self._keyboard.ready_at
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
        """See DeviceModel. When a key has been held, or none, for long enough."""
        due = self._keyboard_due()
        return None if due == _NEVER else due

    def receive(self, now: int, data: bytes) -> int:
        """See DeviceModel and the module's text about host input."""
        self.advance(now)
        count = 0
        if not self._command_byte & CB_DISABLE:
            while count < len(data) and self._keyboard.press(data[count]):
                count += 1
        self._input_refused = count < len(data)
        self._fill()
        return count

    def reset(self, now: int) -> None:
        """See DeviceModel. Changes of keys that the keyboard has taken are gone."""
        self.advance(now)
        self._power_on()
        self._keyboard.power_on()
        self._drive_lines()
        self._fill()  # there is room

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        value, kind = self._answer or (0, 0)
        flags = _INPUT_REFUSED if self._input_refused else 0
        if self._answer is not None:
            flags |= _ANSWER_WAITS
        if self._from_keyboard:
            flags |= _FROM_KEYBOARD
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
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, _SNAPSHOT_SIZE)
        _, status, command_byte, command, output, output_port, port_92, value, kind, flags, now = (
            _SNAPSHOT.unpack_from(state)
        )
        keyboard = Ps2Keyboard()
        keyboard.restore(state[_SNAPSHOT.size :])
        waits = flags & _ANSWER_WAITS
        from_keyboard = bool(flags & _FROM_KEYBOARD)
        ready_at = keyboard.ready_at
        ready = ready_at is not None and ready_at <= now and not command_byte & CB_DISABLE
        has_room = keyboard.room and not command_byte & CB_DISABLE
        if (
            status & ~_STATUS_BITS
            or not status & ST_UNLOCKED
            or (status & (ST_AUX_OBF | ST_TIMEOUT) and not status & ST_OBF)
            or (command and command not in _WITH_DATA)
            or output_port & (P2_OBF | P2_AUX_OBF)
            or kind not in (0, ST_AUX_OBF, ST_AUX_OBF | ST_TIMEOUT)
            or flags & ~_FLAGS
            or (not waits and (value or kind))
            or not keyboard.read_at <= now <= _LAST_NOW
            or (ready and not status & ST_OBF)
            or (waits and not from_keyboard)
            or (from_keyboard and status & (ST_OBF | ST_AUX_OBF | ST_TIMEOUT) != ST_OBF)
            or (flags & _INPUT_REFUSED and has_room)
        ):
            raise SnapshotError("8042 snapshot holds a state that the chip cannot have")
        self._status = status
        self._command_byte = command_byte
        self._command = command
        self._output = output
        self._output_port = output_port
        self._port_92 = port_92
        self._from_keyboard = from_keyboard
        self._answer = (value, kind) if waits else None
        self._input_refused = bool(flags & _INPUT_REFUSED)
        self._now = now
        self._keyboard = keyboard
        self._lines = self._lines_wanted()
        self._effects = []
