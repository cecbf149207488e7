"""A PS/2 mouse with a wheel and five buttons: movements and buttons in, bytes for the controller out.

Theory of operation
-------------------
The mouse is a part of the 8042's model (`model.py`), which takes its bytes with `take` and sends it commands
with `write`. Sources: IBM PS/2 Hardware Interface Technical Reference, Mouse; Microsoft's IntelliMouse and
IntelliMouse Explorer protocols for the wheel and for buttons 4 and 5.

*Events* come from the VMM, `EVENT.size` bytes each: no byte of a key begins as they do. An event changes one
button at most, and moves. Each event has a packet of its own: the mouse takes the next one when the counters
are empty, and until then the VMM waits. So no movement is lost, no click, and no order between them, and a
guest gets the same packets each time. (A real mouse adds up what happens between two packets.) An event that
moves farther than a counter of 9 bits holds sets the overflow bit.

*Packets* leave in stream mode while reporting is on, and as the answer to `READ_DATA`. A packet leaves not
before 1/rate after the guest has read the one before it, and HOLD_NS after one that has changed a button:
a driver that keeps one variable for the buttons sees each click (see `keyboard`).

*Commands.* Any byte from the controller drops what was not fetched of an answer or of a packet, so that no
answer is inside a packet. All but `RESEND` clear the counters. An answer goes before a packet.

*Identity.* It is that of a mouse without a wheel (0), until rates of 200, 100 and 80 have been set (3: a
fourth byte with the wheel), or 200, 200 and 80 (4: it has the buttons 4 and 5, too).
"""

from __future__ import annotations

from struct import Struct

from kvmbox.contract.model import NANOSECONDS, SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Commands.
SET_SCALING_1_1: Final = 0xE6
SET_SCALING_2_1: Final = 0xE7
SET_RESOLUTION: Final = 0xE8  # with an option byte
STATUS_REQUEST: Final = 0xE9
SET_STREAM: Final = 0xEA
READ_DATA: Final = 0xEB
RESET_WRAP: Final = 0xEC
SET_WRAP: Final = 0xEE
SET_REMOTE: Final = 0xF0
READ_ID: Final = 0xF2
SET_RATE: Final = 0xF3  # with an option byte
ENABLE: Final = 0xF4
DISABLE: Final = 0xF5
SET_DEFAULTS: Final = 0xF6
RESEND: Final = 0xFE
RESET: Final = 0xFF
_COMMANDS: Final = frozenset(range(SET_SCALING_1_1, READ_DATA + 1)) | {
    *(RESET_WRAP, SET_WRAP, SET_REMOTE, READ_ID, SET_RATE, ENABLE, DISABLE, SET_DEFAULTS, RESEND, RESET)
}

ACK: Final = 0xFA
SELF_TEST_PASSED: Final = 0xAA
PLAIN, WHEEL, EXPLORER = 0, 3, 4  # identities

RATES: Final = (10, 20, 40, 60, 80, 100, 200)  # reports a second
MOST_RESOLUTION: Final = 3
_KNOCKS: Final = {(200, 100, 80): WHEEL, (200, 200, 80): EXPLORER}

# Buttons, and the first byte of a packet.
LEFT: Final = 0x01
RIGHT: Final = 0x02
MIDDLE: Final = 0x04
BACK: Final = 0x08  # button 4
FORWARD: Final = 0x10  # button 5
BUTTONS: Final = LEFT | RIGHT | MIDDLE | BACK | FORWARD
ALWAYS: Final = 0x08
X_SIGN: Final = 0x10
Y_SIGN: Final = 0x20
X_OVERFLOW: Final = 0x40
Y_OVERFLOW: Final = 0x80

# The first byte of the status.
_REMOTE: Final = 0x40
_REPORTING: Final = 0x20
_SCALING: Final = 0x10
_WRAPPED: Final = 0x08  # never told, as a status cannot be asked for in it
_MODES: Final = _REMOTE | _REPORTING | _SCALING | _WRAPPED

EVENT: Final = Struct("<BBhhb")
"""An event: EVENT_MARK; a button, with RELEASED if it is released, or 0; counts to the right, up, and notches
of the wheel towards the user.
"""
EVENT_MARK: Final = 0x00
RELEASED: Final = 0x80
MOST_COUNTS: Final = 255
"""Of one movement in one direction: what a packet holds."""
MOST_NOTCHES: Final = 7

HOLD_NS: Final = 60_000_000
"""How long a button stays as a packet has told it, at least: as a key does."""

_SNAPSHOT: Final = Struct("<9BhhbQQB5sB4s")
STATE_SIZE: Final = _SNAPSHOT.size
"""Bytes of a snapshot of the mouse."""


class Ps2Mouse:
    """The mouse; see the module's theory of operation.

    >>> mouse = Ps2Mouse()
    >>> mouse.write(ENABLE)
    >>> hex(mouse.take())
    '0xfa'
    >>> mouse.event(EVENT.pack(EVENT_MARK, LEFT, 3, -2, 0))
    True
    >>> bytes(mouse.take() for _ in range(3)).hex(" ")
    '29 03 fe'
    """

    __slots__ = (
        *("_buttons", "_bytes", "_command", "_dx", "_dy", "_dz", "_identity", "_last", "_modes"),
        *("_rate", "_rates", "_read_at", "_reported", "_resolution", "_wait"),
    )

    def __init__(self) -> None:
        self._buttons = 0  # as they are
        self._read_at = 0  # when the guest has read a byte of the mouse, or an earlier time
        self.power_on()

    def power_on(self) -> None:
        """A reset of the machine, or of the mouse. Buttons that are held stay held."""
        self._identity = PLAIN
        self._rates = (0, 0)  # the two that were set last
        self._bytes = b""  # what the controller has not taken of an answer or a packet
        self._last = b""  # what RESEND gives
        self._wait = 0  # ns between the last read and the next packet
        self._reported = self._buttons  # as the guest knows them
        self._defaults()

    def _defaults(self) -> None:
        self._command = 0  # the command that waits for its option byte; 0 for none
        self._modes = 0
        self._resolution = 2
        self._rate = 100
        self._clear()

    def _clear(self) -> None:
        self._dx = self._dy = self._dz = 0

    # --- Events -------------------------------------------------------------------------------------------

    @property
    def _takes_events(self) -> bool:
        return not self._modes & _WRAPPED and bool(self._modes & (_REMOTE | _REPORTING))

    @property
    def _changed(self) -> int:
        """The buttons whose change is to be told, of those that the protocol has."""
        visible = BUTTONS if self._identity == EXPLORER else LEFT | RIGHT | MIDDLE
        return (self._buttons ^ self._reported) & visible

    @property
    def _waits(self) -> bool:
        return bool(self._dx or self._dy or self._dz or self._changed)

    @property
    def room(self) -> int:
        """How many bytes of events are surely taken."""
        return EVENT.size if self._takes_events and not self._waits else 0

    def event(self, data: bytes) -> bool:
        """Take an event, `EVENT.size` bytes. False if that cannot be now, and nothing has happened."""
        _, change, dx, dy, dz = EVENT.unpack(data)
        if not self.room:
            return False
        self._dx = dx
        self._dy = dy
        self._dz = 0 if self._identity == PLAIN else max(-MOST_NOTCHES, min(dz, MOST_NOTCHES))
        button = change & -change & BUTTONS  # one at most
        self._buttons = self._buttons & ~button if change & RELEASED else self._buttons | button
        self._forget_untold()
        return True

    def _forget_untold(self) -> None:
        """A change that the protocol does not tell is never told."""
        if not self._changed:
            self._reported = self._buttons

    # --- Bytes for the controller -------------------------------------------------------------------------

    @property
    def ready_at(self) -> int | None:
        """The time from which on there is something to take; None if nothing waits."""
        if self._bytes:
            return 0
        if self._modes & (_WRAPPED | _REMOTE | _REPORTING) != _REPORTING or not self._waits:
            return None
        return self._read_at + self._wait

    @property
    def read_at(self) -> int:
        """The last time of `was_read`."""
        return self._read_at

    def was_read(self, now: int) -> None:
        """The guest has read the byte that was taken last. `now` does not decrease."""
        self._read_at = now

    def take(self) -> int:
        """The next byte for the controller, from `ready_at` on."""
        if not self._bytes:
            self._last = self._bytes = self._made_packet(scaled=bool(self._modes & _SCALING))
        value, self._bytes = self._bytes[0], self._bytes[1:]
        return value

    def _made_packet(self, *, scaled: bool) -> bytes:
        """Take the counters and the buttons into a packet."""
        self._wait = HOLD_NS if self._changed else NANOSECONDS // self._rate
        first = ALWAYS | self._buttons & (LEFT | RIGHT | MIDDLE)
        counts = []
        for counter, sign, overflow in ((self._dx, X_SIGN, X_OVERFLOW), (self._dy, Y_SIGN, Y_OVERFLOW)):
            count = _doubled(counter) if scaled else counter
            if abs(count) > MOST_COUNTS:
                first |= overflow
                count = MOST_COUNTS if count > 0 else -MOST_COUNTS
            if count < 0:
                first |= sign
            counts.append(count & 0xFF)
        packet = bytes((first, *counts))
        if self._identity == WHEEL:
            packet += bytes((self._dz & 0xFF,))
        elif self._identity == EXPLORER:
            packet += bytes((self._dz & 0x0F | (self._buttons & (BACK | FORWARD)) << 1,))
        self._reported = self._buttons
        self._clear()
        return packet

    # --- Commands -----------------------------------------------------------------------------------------

    def write(self, value: int) -> None:
        """The controller sends a byte: a command, or the option byte of one."""
        if self._modes & _WRAPPED and value not in (RESET_WRAP, RESET):
            self._bytes = bytes((value,))
            return
        command, self._command = self._command, 0
        if value == RESEND:
            self._bytes = self._last or bytes((ACK,))
            return
        if value == READ_DATA:
            self._bytes = bytes((ACK,)) + self._made_packet(scaled=False)
        elif command and value not in _COMMANDS:
            self._bytes = bytes((ACK if self._take_option(command, value) else RESEND,))
        else:  # a command in the place of an option byte is done, and the one that waited is not
            self._bytes = bytes((ACK if value in _COMMANDS else RESEND,))
            self._do_command(value)
        self._clear()
        self._last = self._bytes[1:] or self._bytes

    def _do_command(self, command: int) -> None:
        if command in (SET_RESOLUTION, SET_RATE):
            self._command = command
        elif command in (SET_SCALING_1_1, SET_SCALING_2_1):
            self._set_modes(_SCALING, _SCALING if command == SET_SCALING_2_1 else 0)
        elif command in (SET_STREAM, SET_REMOTE):
            self._set_modes(_REMOTE, _REMOTE if command == SET_REMOTE else 0)
        elif command in (ENABLE, DISABLE):
            self._set_modes(_REPORTING, _REPORTING if command == ENABLE else 0)
        elif command in (SET_WRAP, RESET_WRAP):
            self._set_modes(_WRAPPED, _WRAPPED if command == SET_WRAP else 0)
        elif command == SET_DEFAULTS:
            self._defaults()
        elif command == STATUS_REQUEST:
            buttons = self._buttons
            held = (buttons & LEFT) << 2 | (buttons & RIGHT) >> 1 | (buttons & MIDDLE) >> 1
            self._bytes += bytes((self._modes | held, self._resolution, self._rate))
        elif command == READ_ID:
            self._bytes += bytes((self._identity,))
        elif command == RESET:
            self.power_on()
            self._bytes = bytes((ACK, SELF_TEST_PASSED, self._identity))

    def _set_modes(self, mask: int, modes: int) -> None:
        self._modes = self._modes & ~mask | modes

    def _take_option(self, command: int, value: int) -> bool:
        if command == SET_RESOLUTION:
            if value > MOST_RESOLUTION:
                return False
            self._resolution = value
            return True
        if value not in RATES:
            return False
        self._rate = value
        self._identity = _KNOCKS.get((*self._rates, value), self._identity)
        self._rates = self._rates[1], value
        self._forget_untold()
        return True

    # --- The machine --------------------------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The whole state, `STATE_SIZE` bytes."""
        return _SNAPSHOT.pack(
            *(self._command, self._identity, self._modes),
            *(self._resolution, self._rate, *self._rates, self._buttons, self._reported),
            *(self._dx, self._dy, self._dz, self._read_at, self._wait),
            *(len(self._bytes), self._bytes, len(self._last), self._last),
        )

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw; raises SnapshotError for anything malformed, without effect."""
        check_state(state)
        command, identity, modes, resolution, rate, older, old, buttons, reported, *rest = _SNAPSHOT.unpack(
            state
        )
        self._command = command
        self._identity = identity
        self._modes = modes
        self._resolution = resolution
        self._rate = rate
        self._rates = older, old
        self._buttons = buttons
        self._reported = reported
        self._dx, self._dy, self._dz, self._read_at, self._wait, count, data, length, last = rest
        self._bytes = data[:count]
        self._last = last[:length]


def _doubled(count: int) -> int:
    """A count of a packet with scaling 2:1."""
    size = abs(count)
    size = _SMALL_DOUBLED[size] if size < len(_SMALL_DOUBLED) else 2 * size
    return -size if count < 0 else size


_SMALL_DOUBLED: Final = (0, 1, 1, 3, 6, 9)


def check_state(state: bytes) -> None:
    """Raise SnapshotError unless `state` is a state that the mouse can have."""
    command, identity, modes, resolution, rate, older, old, buttons, reported, *rest = _SNAPSHOT.unpack(state)
    _, _, dz, _, wait, *pieces = rest
    invisible = 0 if identity == EXPLORER else BACK | FORWARD
    if (
        command not in (0, SET_RESOLUTION, SET_RATE)
        or identity not in (PLAIN, WHEEL, EXPLORER)
        or modes & ~_MODES
        or resolution > MOST_RESOLUTION
        or rate not in RATES
        or any(one and one not in RATES for one in (older, old))
        or (buttons | reported) & ~BUTTONS
        or (buttons ^ reported) & invisible
        or abs(dz) > (0 if identity == PLAIN else MOST_NOTCHES)
        or wait not in (0, HOLD_NS, *(NANOSECONDS // one for one in RATES))
        or any(
            count > len(data) or any(data[count:]) for count, data in zip(*[iter(pieces)] * 2, strict=True)
        )
    ):
        raise SnapshotError("8042 snapshot holds a state that the mouse cannot have")
