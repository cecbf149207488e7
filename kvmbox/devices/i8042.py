"""The 8042 keyboard controller with nothing plugged in, and system control port A (0x92).

Theory of operation
-------------------
Guests meet the 8042 for three reasons: to poll it (its status must read sanely), to switch A20 on, and to
reset the machine. Offset 0 is port 0x60 (data), 1 is port 0x64 (status; commands), 2 is port 0x92. A command
is done within its write, so IBF is never seen set. An answer goes to the output buffer, which holds one byte
as in the chip: OBF is set until port 0x60 is read, and a newer answer replaces one that was not fetched.

There is no keyboard and no mouse. What the guest sends to either is answered as the chip answers for a
device that does not react: 0xFE in the output buffer with the time-out bit of the status set. An operating
system therefore finds a working controller (self-test 0x55, both interface tests 0x00, loopback of both
buffers) and no device on either port, without waiting for one.

    pin 0   IRQ 1: OBF with keyboard data, if the command byte's bit 0 allows it
    pin 1   IRQ 12: OBF with auxiliary data, if bit 1 allows it

A20 is kept as a bit in both places (output port bit 1, port 0x92 bit 1), and has no effect: the address line
is always on. `Reset` follows from 0xFE and any other pulse of output bit 0 (commands 0xF0..0xFF), from an
output port written with bit 0 clear, and from port 0x92 when bit 0 goes from 0 to 1.
"""

from __future__ import annotations

import struct

from kvmbox.devices.model import IrqLine, Reset, SnapshotError
from kvmbox.devices.port_models import PortModel, check_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

DATA: Final = 0
STATUS: Final = 1  # command when written
PORT_92: Final = 2

# Status register.
ST_OBF: Final = 0x01  # output buffer full
ST_IBF: Final = 0x02  # input buffer full: never seen
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

_SNAPSHOT: Final = struct.Struct("<4s6B")
_SNAPSHOT_MAGIC: Final = b"KBC\x01"
_STATUS_BITS: Final = ST_OBF | ST_SYS | ST_CD | ST_UNLOCKED | ST_AUX_OBF | ST_TIMEOUT


class I8042(PortModel):
    """The controller and port 0x92; see the module's theory of operation.

    Command 0xfe pulses the processor's reset line:

    >>> model = I8042()
    >>> model.write(0, 1, 1, 0xFE)
    >>> model.take_effects()
    [Reset()]
    """

    __slots__ = ("_command", "_command_byte", "_lines", "_output", "_output_port", "_port_92", "_status")

    port_count = 3

    def __init__(self) -> None:
        super().__init__()
        self._lines = 0  # bit per pin
        self._power_on()

    def _power_on(self) -> None:
        self._status = ST_UNLOCKED | ST_CD
        self._command_byte = CB_INT | CB_INT2
        self._command = 0  # the command that waits for its data byte; 0 for none
        self._output = 0
        self._output_port = _P2_POWER_ON
        self._port_92 = P92_A20

    def _read_byte(self, offset: int) -> int:
        if offset == STATUS:
            return self._status
        if offset == PORT_92:
            return self._port_92
        self._status &= ~(ST_OBF | ST_AUX_OBF | ST_TIMEOUT)
        self._drive_lines()
        return self._output

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
            self._answer(self._command_byte)
        elif command == SELF_TEST:
            self._status |= ST_SYS
            self._answer(SELF_TEST_PASSED)
        elif command in (TEST_KEYBOARD, TEST_AUX):
            self._answer(0x00)
        elif command == DISABLE_KEYBOARD:
            self._command_byte |= CB_DISABLE
        elif command == ENABLE_KEYBOARD:
            self._command_byte &= ~CB_DISABLE
        elif command == DISABLE_AUX:
            self._command_byte |= CB_DISABLE2
        elif command == ENABLE_AUX:
            self._command_byte &= ~CB_DISABLE2
        elif command == READ_INPUT_PORT:
            self._answer(INPUT_PORT)
        elif command == READ_OUTPUT_PORT:
            full = P2_OBF if self._status & ST_OBF else 0
            aux = P2_AUX_OBF if self._status & ST_AUX_OBF else 0
            self._answer(self._output_port | full | aux)
        elif command == ENABLE_A20:
            self._output_port |= P2_A20
        elif command == DISABLE_A20:
            self._output_port &= ~P2_A20

    def _take_data(self, value: int) -> None:
        command = self._command
        self._command = 0
        if command == WRITE_COMMAND_BYTE:
            self._command_byte = value
            self._status = self._status & ~ST_SYS | (ST_SYS if value & CB_SYS else 0)
            self._drive_lines()
        elif command == WRITE_OUTPUT_PORT:
            if not value & P2_RESET:
                self._effects.append(Reset())
            self._output_port = value & ~(P2_OBF | P2_AUX_OBF)
        elif command == WRITE_KEYBOARD_BUFFER:
            self._answer(value)
        elif command == WRITE_AUX_BUFFER:
            self._answer(value, ST_AUX_OBF)
        elif command == WRITE_AUX:
            self._answer(RESEND, ST_AUX_OBF | ST_TIMEOUT)
        else:
            self._answer(RESEND, ST_TIMEOUT)

    def _answer(self, value: int, kind: int = 0) -> None:
        """Put a byte into the output buffer; `kind` is ST_AUX_OBF, ST_TIMEOUT, both or neither."""
        self._output = value
        self._status = self._status & ~(ST_AUX_OBF | ST_TIMEOUT) | ST_OBF | kind
        self._drive_lines()

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
        return 1 if self._command_byte & CB_INT else 0

    def reset(self, now: int) -> None:
        """See DeviceModel."""
        self._power_on()
        self._drive_lines()

    def snapshot(self) -> bytes:
        """See DeviceModel."""
        return _SNAPSHOT.pack(
            _SNAPSHOT_MAGIC,
            self._status,
            self._command_byte,
            self._command,
            self._output,
            self._output_port,
            self._port_92,
        )

    def restore(self, state: bytes) -> None:
        """See DeviceModel."""
        check_snapshot(state, _SNAPSHOT_MAGIC, _SNAPSHOT.size)
        _, status, command_byte, command, output, output_port, port_92 = _SNAPSHOT.unpack(state)
        if (
            status & ~_STATUS_BITS
            or not status & ST_UNLOCKED
            or (status & (ST_AUX_OBF | ST_TIMEOUT) and not status & ST_OBF)
            or (command and command not in _WITH_DATA)
            or output_port & (P2_OBF | P2_AUX_OBF)
        ):
            raise SnapshotError("8042 snapshot holds a state that the chip cannot have")
        self._status = status
        self._command_byte = command_byte
        self._command = command
        self._output = output
        self._output_port = output_port
        self._port_92 = port_92
        self._lines = self._lines_wanted()
        self._effects = []
