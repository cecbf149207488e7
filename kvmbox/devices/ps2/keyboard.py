"""A PS/2 keyboard with 101 or 102 keys: keys in, bytes for the controller out.

Theory of operation
-------------------
The keyboard is a part of the 8042's model (`model.py`), which takes its bytes with `take` and sends it
commands with `write`. Source: IBM PS/2 Hardware Interface Technical Reference, Keyboard (101- and 102-key).

*Keys* come as bytes, one for each change: IBM's number of the key (1 to 126, the figures "Key numbering"
there), with bit 7 set if the key is released. Numbers that no key has are dropped. Nothing here knows what
is printed on a key. `press` turns a change into the bytes of the scan code set that is selected, and puts
them into a queue of 16 bytes. It takes a change only if all of its bytes fit and scanning is enabled. So
the queue never overruns, and the overrun code is never sent: who presses keys has to wait.

*Scan codes.* Set 2 is the one at power-on. Set 1 is what the controller would make of set 2, by the same
table. In set 3 each key has one byte. Keys do not repeat while they are held, as repeating needs time.
There are no key types of set 3: each key tells when it is pressed and when it is released. Shift and
Num Lock do not change what the keys send (the real keyboard sends more bytes around some of them).

*Time.* Keys may come all at once, and leave as a fast typist presses them. A release does not leave before
the guest has read the press in front of it, and HOLD_NS more; a press not before the guest has read the
release in front of it, and GAP_NS more. Presses that follow each other, as those of a chord, have no time
between them, and releases neither. Many drivers keep one variable, which the handler of a press sets and
that of a release clears, for a loop that looks at it now and then: without this time, the loop sees nothing.

*Answers* to commands go before keys, whose queue they leave as it is. A command discards what was not
fetched of the answer to the one before.
"""

from __future__ import annotations

from kvmbox.contract.model import SnapshotError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Commands.
SET_INDICATORS: Final = 0xED  # with an option byte
ECHO: Final = 0xEE
SELECT_SCAN_CODES: Final = 0xF0  # with an option byte
READ_ID: Final = 0xF2
SET_TYPEMATIC: Final = 0xF3  # with an option byte
ENABLE: Final = 0xF4
DEFAULT_DISABLE: Final = 0xF5
SET_DEFAULT: Final = 0xF6
# 0xF7 to 0xFA: key types of set 3
SET_KEY_TYPEMATIC: Final = 0xFB  # this and the next: with set-3 codes of keys
SET_KEY_MAKE: Final = 0xFD
RESEND: Final = 0xFE
RESET: Final = 0xFF

# Answers.
ACK: Final = 0xFA
SELF_TEST_PASSED: Final = 0xAA  # the basic assurance test
ID: Final = (0xAB, 0x83)
LED_BITS: Final = 0x07
"""Option bits of SET_INDICATORS: Scroll Lock, Num Lock, Caps Lock."""
TYPEMATIC_BITS: Final = 0x7F
TYPEMATIC_POWER_ON: Final = 0x2B
"""500 ms, then 10.9 a second."""

QUEUE_SIZE: Final = 16
LONGEST: Final = 8
"""Bytes of the longest sequence that one change sends: Pause."""
RELEASED: Final = 0x80
"""The bit of a change that says that the key is released."""

HOLD_NS: Final = 60_000_000
"""How long a key is held at least: longer than a tick of 18.2 Hz, at which a loop may look for keys."""
GAP_NS: Final = 20_000_000
"""How long no key is held at least before the next one: longer than a frame of 60 Hz."""

EXTENDED: Final = 0xE0
BREAK: Final = 0xF0

_WITH_OPTION: Final = frozenset(
    {SET_INDICATORS, SELECT_SCAN_CODES, SET_TYPEMATIC, *range(SET_KEY_TYPEMATIC, SET_KEY_MAKE + 1)}
)
_MOST_ANSWERS: Final = 3
_PRESS: Final = 1  # marks of the first byte of a change in the queue; the other bytes have 0
_RELEASE: Final = 2

TRANSLATED: Final = bytes.fromhex(
    "ff43413f3d3b3c58644442403e0f2959"
    "65382a701d10025a66712c1f1e11035b"
    "672e2d201205045c68392f211413065d"
    "69313023221507 5e6a72322416 08095f"
    "6b332517180b0a606c34352627190c61"
    "6d7328741a0d626e3a361c1b752b6376"
    "55567778797a0e7b7c4f7d4b477e7f6f"
    "525350 4c4d480145574e514a37494654"
    "80818241548586"
) + bytes(range(0x87, 0x100))
"""What the controller's translation makes of each byte of set 2, except for the break prefix: set 1."""

_PRINT_SCREEN: Final = 124
_PAUSE: Final = 126

# Codes of the keys in set 2, by number. Those of the keys that a keyboard of 84 keys lacks follow 0xE0.
_SET_2: Final = {
    **dict(zip(range(1, 14), bytes.fromhex("0e161e26252e363d3e46454e55"), strict=True)),
    **dict(zip(range(15, 30), bytes.fromhex("660d151d242d2c353c43444d545b5d"), strict=True)),
    **dict(zip(range(30, 42), bytes.fromhex("581c1b232b34333b424b4c52"), strict=True)),
    **dict(zip(range(42, 56), bytes.fromhex("5d5a12611a22212a32313a41494a"), strict=True)),
    57: 0x59,
    58: 0x14,
    60: 0x11,
    61: 0x29,
    **dict(zip(range(90, 94), bytes.fromhex("776c6b69"), strict=True)),
    **dict(zip(range(96, 107), bytes.fromhex("757372707c7d747a717b79"), strict=True)),
    110: 0x76,
    125: 0x7E,
    **dict(zip(range(112, 124), bytes.fromhex("0506040c030b830a01097807"), strict=True)),
}
_SET_2_EXTENDED: Final = {
    62: 0x11,
    64: 0x14,
    75: 0x70,
    76: 0x71,
    79: 0x6B,
    80: 0x6C,
    81: 0x69,
    83: 0x75,
    84: 0x72,
    85: 0x7D,
    86: 0x7A,
    89: 0x74,
    95: 0x4A,
    108: 0x5A,
}
# In set 3 most keys have the code of set 2. These differ.
_SET_3: Final = {
    29: 0x5C,
    30: 0x14,
    42: 0x53,
    45: 0x13,
    58: 0x11,
    60: 0x19,
    62: 0x39,
    64: 0x58,
    75: 0x67,
    76: 0x64,
    79: 0x61,
    80: 0x6E,
    81: 0x65,
    83: 0x63,
    84: 0x60,
    85: 0x6F,
    86: 0x6D,
    89: 0x6A,
    90: 0x76,
    95: 0x77,
    100: 0x7E,
    105: 0x84,
    106: 0x7C,
    108: 0x79,
    110: 0x08,
    _PRINT_SCREEN: 0x57,
    125: 0x5F,
    _PAUSE: 0x62,
    **dict(zip(range(112, 124), bytes.fromhex("070f171f272f373f474f565e"), strict=True)),
}

KEY_NUMBERS: Final = frozenset(_SET_2) | frozenset(_SET_2_EXTENDED) | {_PRINT_SCREEN, _PAUSE}
"""IBM's numbers of the keys that the keyboard has."""


def scan_codes(change: int, scan_set: int) -> bytes:
    """What the keyboard sends in a scan code set when a key changes; nothing for a key that it does not have.

    >>> scan_codes(31, 2).hex(), scan_codes(31 | RELEASED, 2).hex(), scan_codes(31 | RELEASED, 1).hex()
    ('1c', 'f01c', '9e')
    """
    number, released = change & ~RELEASED, change & RELEASED
    if number not in KEY_NUMBERS:
        return b""
    if scan_set == 3:
        code = _SET_3[number] if number in _SET_3 else _SET_2[number]
        return bytes((BREAK, code)) if released else bytes((code,))
    codes = _set_2(number, released)
    return translated(codes) if scan_set == 1 else codes


def _set_2(number: int, released: int) -> bytes:
    if number == _PAUSE:  # its break follows its make at once, and there is none on release
        return b"" if released else bytes.fromhex("e11477e1f014f077")
    if number == _PRINT_SCREEN:  # with the shift that it used to need
        return bytes.fromhex("e0f07ce0f012" if released else "e012e07c")
    is_extended = number in _SET_2_EXTENDED
    codes = bytes((_SET_2_EXTENDED[number] if is_extended else _SET_2[number],))
    if released:
        codes = bytes((BREAK,)) + codes
    return bytes((EXTENDED,)) + codes if is_extended else codes


def translated(codes: bytes) -> bytes:
    """What the controller's translation makes of `codes`, which do not end with a break prefix."""
    made = bytearray()
    released = 0
    for code in codes:
        if code == BREAK:
            released = RELEASED
        else:
            made.append(TRANSLATED[code] | released)
            released = 0
    return bytes(made)


class Ps2Keyboard:
    """The keyboard; see the module's theory of operation.

    >>> keyboard = Ps2Keyboard()
    >>> keyboard.press(31), keyboard.press(31 | RELEASED)
    (True, True)
    >>> hex(keyboard.take())
    '0x1c'
    >>> keyboard.was_read(5)
    >>> keyboard.ready_at == 5 + HOLD_NS
    True
    >>> [hex(keyboard.take()) for _ in range(2)]
    ['0xf0', '0x1c']
    """

    __slots__ = (
        *("_answers", "_command", "_keys", "_last", "_leds", "_marks", "_phase", "_read_at"),
        *("_scan_set", "_scanning", "_typematic"),
    )

    def __init__(self) -> None:
        self._last = SELF_TEST_PASSED
        self._read_at = 0  # when the guest has read a byte of the keyboard, or an earlier time
        self._defaults()

    def _defaults(self) -> None:
        self._command = 0  # the command that waits for its option byte; 0 for none
        self._scan_set = 2
        self._scanning = 1
        self._leds = 0
        self._typematic = TYPEMATIC_POWER_ON
        self._answers = b""
        self._keys = b""
        self._marks = b""  # one for each byte of the keys
        self._phase = 0  # the mark of the change that left last; 0 for none

    def power_on(self) -> None:
        """The machine's reset, which on a PC includes a reset command. What a self-test says is gone."""
        self._last = SELF_TEST_PASSED
        self._defaults()

    @property
    def ready_at(self) -> int | None:
        """The time from which on there is something to take; None if nothing waits."""
        if self._answers:
            return 0
        if not self._keys:
            return None
        mark = self._marks[0]
        if not mark or not self._phase or mark == self._phase:
            return 0
        return self._read_at + (HOLD_NS if mark == _RELEASE else GAP_NS)

    @property
    def is_inside_change(self) -> bool:
        """Whether the next byte belongs to the change of which the last one was a byte."""
        return bool(not self._answers and self._keys and not self._marks[0])

    @property
    def read_at(self) -> int:
        """The last time of `was_read`."""
        return self._read_at

    def was_read(self, now: int) -> None:
        """The guest has read the byte that was taken last. `now` does not decrease."""
        self._read_at = now

    @property
    def room(self) -> int:
        """How many changes surely fit."""
        return (QUEUE_SIZE - len(self._keys)) // LONGEST if self._scanning else 0

    def press(self, change: int) -> bool:
        """A key changes. False if the keyboard cannot take that now, and nothing has happened."""
        if not self._scanning:
            return False
        codes = scan_codes(change, self._scan_set)
        if len(self._keys) + len(codes) > QUEUE_SIZE:
            return False
        self._keys += codes
        mark = _RELEASE if change & RELEASED else _PRESS
        self._marks += bytes((mark,) + (0,) * (len(codes) - 1)) if codes else b""
        return True

    def take(self) -> int:
        """The next byte for the controller, from `ready_at` on."""
        if self._answers:
            self._last, self._answers = self._answers[0], self._answers[1:]
        else:
            self._last, self._keys = self._keys[0], self._keys[1:]
            self._phase = self._marks[0] or self._phase
            self._marks = self._marks[1:]
        return self._last

    def write(self, value: int) -> None:
        """The controller sends a byte: a command, or the option byte of one."""
        command = self._command
        self._answers = b""
        if command and value < SET_INDICATORS:
            self._take_option(command, value)
        else:  # a command in the place of an option byte is done, and the one that waited is not
            self._command = value if value in _WITH_OPTION else 0
            self._do_command(value)

    def _do_command(self, command: int) -> None:
        if command == ECHO:
            self._answers = bytes((ECHO,))
            return
        if command == RESEND:
            self._answers = bytes((self._last,))
            return
        if command < SET_INDICATORS or command in (0xEF, 0xF1):
            self._answers = bytes((RESEND,))
            return
        if command in (DEFAULT_DISABLE, SET_DEFAULT, RESET):
            self._defaults()
            self._scanning = int(command != DEFAULT_DISABLE)
        elif command == ENABLE:
            self._scanning = 1
        self._answers = bytes((ACK,))
        if command == READ_ID:
            self._answers += bytes(ID)
        elif command == RESET:
            self._answers += bytes((SELF_TEST_PASSED,))

    def _take_option(self, command: int, value: int) -> None:
        self._answers = bytes((ACK,))
        if SET_KEY_TYPEMATIC <= command <= SET_KEY_MAKE:
            return  # one key of any number that may follow
        self._command = 0
        if command == SET_INDICATORS:
            self._leds = value & LED_BITS
        elif command == SET_TYPEMATIC:
            self._typematic = value & TYPEMATIC_BITS
        elif value == 0:
            self._answers += bytes((self._scan_set,))
        elif value <= 3:
            self._scan_set = value
        else:
            self._answers = bytes((RESEND,))

    def snapshot(self) -> bytes:
        """The whole state, `STATE_SIZE` bytes."""
        return bytes(
            (
                *(self._command, self._scan_set, self._scanning, self._leds, self._typematic, self._last),
                len(self._answers),
                *self._answers.ljust(_MOST_ANSWERS, b"\0"),
                len(self._keys),
                *self._keys.ljust(QUEUE_SIZE, b"\0"),
                *self._marks.ljust(QUEUE_SIZE, b"\0"),
                self._phase,
                *self._read_at.to_bytes(8, "little"),
            )
        )

    def restore(self, state: bytes) -> None:
        """Become what `snapshot` saw; raises SnapshotError for anything malformed, without effect."""
        check_state(state)
        self._command, self._scan_set, self._scanning, self._leds, self._typematic, self._last = state[:6]
        answers, count = state[6:_KEYS_AT], state[_KEYS_AT]
        self._answers = answers[1 : 1 + answers[0]]
        self._keys = state[_KEYS_AT + 1 :][:count]
        self._marks = state[_MARKS_AT:][:count]
        self._phase = state[_PHASE_AT]
        self._read_at = int.from_bytes(state[_PHASE_AT + 1 :], "little")


_KEYS_AT: Final = 7 + _MOST_ANSWERS
_MARKS_AT: Final = _KEYS_AT + 1 + QUEUE_SIZE
_PHASE_AT: Final = _MARKS_AT + QUEUE_SIZE
STATE_SIZE: Final = _PHASE_AT + 1 + 8
"""Bytes of a snapshot of the keyboard."""


def check_state(state: bytes) -> None:
    """Raise SnapshotError unless `state` is a state that the keyboard can have."""
    command, scan_set, scanning, leds, typematic = state[:5]
    queues = state[6:_KEYS_AT], state[_KEYS_AT:_MARKS_AT]
    marks = state[_MARKS_AT:_PHASE_AT]
    if (
        (command and command not in _WITH_OPTION)
        or not 1 <= scan_set <= 3
        or scanning > 1
        or leds & ~LED_BITS
        or typematic & ~TYPEMATIC_BITS
        or any(queue[0] > len(queue) - 1 or any(queue[1 + queue[0] :]) for queue in queues)
        or any(marks[state[_KEYS_AT] :])
        or max(marks) > _RELEASE
        or state[_PHASE_AT] > _RELEASE
    ):
        raise SnapshotError("8042 snapshot holds a state that the keyboard cannot have")
