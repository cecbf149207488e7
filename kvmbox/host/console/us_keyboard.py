"""A US keyboard as a person uses it: from texts, chords and bytes of a terminal to changes of keys. Pure.

A change is a byte as `devices.ps2.keyboard` takes it: IBM's number of the key, with bit 7 if it is released.
A character that needs Shift, or Ctrl as a terminal has it (0x03 is Ctrl-C), is pressed with that key. Held
keys are released in the reverse order. Nothing here knows whether Caps Lock is on.
"""

from __future__ import annotations

import re
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.devices.ps2.keyboard import RELEASED
from kvmbox.host.console import mouse_events

SHIFT: Final = 44
CTRL: Final = 58
ALT: Final = 60

# Key numbers that follow each other, and what is printed on these keys: without and with Shift.
_ROWS: Final = (
    (1, "`1234567890-=", "~!@#$%^&*()_+"),
    (17, "qwertyuiop[]\\", "QWERTYUIOP{}|"),
    (31, "asdfghjkl;'", 'ASDFGHJKL:"'),
    (46, "zxcvbnm,./", "ZXCVBNM<>?"),
)
_ENTER: Final = 43
_ESCAPE: Final = 110
_STROKES: Final[dict[str, tuple[int, ...]]] = {
    **{one: (first + at,) for first, plain, _ in _ROWS for at, one in enumerate(plain)},
    **{one: (SHIFT, first + at) for first, _, shifted in _ROWS for at, one in enumerate(shifted)},
    " ": (61,),
    "\b": (15,),
    "\x7f": (15,),
    "\t": (16,),
    "\n": (_ENTER,),
    "\r": (_ENTER,),
    "\x1b": (_ESCAPE,),
}

NAMED_KEYS: Final = {
    "enter": _ENTER,
    "escape": _ESCAPE,
    "backspace": 15,
    "tab": 16,
    "space": 61,
    "minus": 12,
    "shift": SHIFT,
    "right_shift": 57,
    "ctrl": CTRL,
    "right_ctrl": 64,
    "alt": ALT,
    "right_alt": 62,
    "caps_lock": 30,
    "num_lock": 90,
    "scroll_lock": 125,
    "print_screen": 124,
    "pause": 126,
    "insert": 75,
    "delete": 76,
    "home": 80,
    "end": 81,
    "page_up": 85,
    "page_down": 86,
    "left": 79,
    "up": 83,
    "down": 84,
    "right": 89,
    **{f"f{number}": 111 + number for number in range(1, 13)},
    **{f"keypad_{digit}": key for digit, key in enumerate((99, 93, 98, 103, 92, 97, 102, 91, 96, 101))},
    "keypad_slash": 95,
    "keypad_star": 100,
    "keypad_minus": 105,
    "keypad_plus": 106,
    "keypad_dot": 104,
    "keypad_enter": 108,
}
"""The keys that `press` knows by a name. Those with a character are named by it, too."""


def _changes(numbers: tuple[int, ...]) -> bytes:
    """Press these keys in their order, and release them."""
    return bytes((*numbers, *(number | RELEASED for number in reversed(numbers))))


def stroke(character: str) -> bytes | None:
    """The changes that type a character; None if no key of a US keyboard does.

    >>> stroke("A").hex(" ")
    '2c 1f 9f ac'
    """
    keys = _STROKES.get(character)
    if keys is None and ord(character) < 0x20:  # Ctrl and a letter, or @ [ \ ] ^ _
        keys = (CTRL, *_STROKES[chr(ord(character) + 0x40).lower()])
    return None if keys is None else _changes(keys)


def typed(text: str) -> bytes:
    """The changes that type a text. Raises UsageError for a character that no key types."""
    made = bytearray()
    for character in text:
        changes = stroke(character)
        if changes is None:
            raise UsageError(
                f"a US keyboard has no key for {character!a}",
                hint="the keyboard types ASCII; other texts go over a serial port",
            )
        made += changes
    return bytes(made)


def chord(keys: str) -> bytes:
    """The changes of keys that are pressed together, as in "ctrl-alt-delete". Raises UsageError.

    >>> chord("ctrl-c").hex(" "), chord("f1").hex(" ")
    ('3a 30 b0 ba', '70 f0')
    """
    numbers = tuple(_key(name, keys) for name in (["-"] if keys == "-" else keys.split("-")))
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"{keys!a} has a key twice")
    return _changes(numbers)


def _key(name: str, keys: str) -> int:
    number = NAMED_KEYS.get(name.lower())
    if number is None:
        found = _STROKES.get(name, ())
        if len(found) != 1 or not name.isprintable():
            raise UsageError(
                f"{keys!a} is no chord: there is no key {name!a}",
                hint=f"a key is a character that needs no Shift, or one of {', '.join(NAMED_KEYS)}",
            )
        number = found[0]
    return number


# --- What a terminal sends --------------------------------------------------------------------------------

_SEQUENCE: Final = re.compile(
    rb"\x1b\[(?P<linux>\[[A-E])|\x1b(?:\[(?P<numbers>[0-9;]{0,16})|O)(?P<final>[A-Z~])"
)
_ESC: Final = 0x1B
_UNFINISHED: Final = re.compile(rb"\x1b(?:\[[0-9;]{0,16}\[?|\[=[0-9;]{0,19}|O)\Z")
_BY_LETTER: Final = {
    **dict(zip("ABCDHF", (83, 84, 89, 79, 80, 81), strict=True)),
    **dict(zip("PQRS", range(112, 116), strict=True)),
}
_BY_NUMBER: Final = {
    1: 80,
    2: 75,
    3: 76,
    4: 81,
    5: 85,
    6: 86,
    7: 80,
    8: 81,
    **dict(zip((*range(11, 16), *range(17, 22), 23, 24), range(112, 124), strict=True)),
}
_MODIFIERS: Final = ((1, SHIFT), (2, ALT), (4, CTRL))


class KeyReader:
    """Takes what a terminal, or a pipe, gives for keys, piece by piece.

    A sequence that ECMA-48 terminals send for a key without a character becomes that key. An escape at the
    end of a piece is the key Escape; before a character it is Alt. A sequence of `mouse_events` is an event
    of the mouse. What no key types is dropped.

    >>> KeyReader().feed(b"\\x1b[A").hex(" ")
    '53 d3'
    """

    def __init__(self) -> None:
        self.dropped = 0
        """How many characters and sequences were dropped."""
        self.events = bytearray()
        """What was done with the mouse: for the caller to take away."""
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """The changes of the keys."""
        data = self._held + data
        self._held = b""
        made = bytearray()
        at = 0
        while at < len(data):
            if data[at] == _ESC:
                sequence = _SEQUENCE.match(data, at)
                if sequence is not None:
                    at = sequence.end()
                    made += self._key_of(sequence)
                    continue
                done = mouse_events.SEQUENCE.match(data, at)
                if done is not None:
                    at = done.end()
                    event = mouse_events.event_of(done)
                    self.events += event or b""
                    self.dropped += event is None
                    continue
                if _UNFINISHED.match(data, at):
                    self._held = data[at:]
                    break
                if at + 1 < len(data) and 0x20 <= data[at + 1] < 0x7F:
                    at += 2
                    made += _changes((ALT, *_STROKES[chr(data[at - 1])]))
                    continue
            if data[at] & 0xC0 != 0x80:  # the rest of a character of UTF-8 is dropped with its beginning
                changes = stroke(chr(data[at]))
                made += changes or b""
                self.dropped += changes is None
            at += 1
        return bytes(made)

    def _key_of(self, sequence: re.Match[bytes]) -> bytes:
        if sequence["linux"]:  # the Linux console's F1 to F5
            return _changes((112 + sequence["linux"][1] - ord("A"),))
        numbers = [int(one) if one else 0 for one in (sequence["numbers"] or b"").split(b";")]
        final = chr(sequence["final"][0])
        if final == "Z":
            return _changes((SHIFT, NAMED_KEYS["tab"]))
        key = _BY_NUMBER.get(numbers[0]) if final == "~" else _BY_LETTER.get(final)
        if key is None:
            self.dropped += 1
            return b""
        held = numbers[1] - 1 if len(numbers) > 1 and numbers[1] else 0
        return _changes((*(number for bit, number in _MODIFIERS if held & bit), key))
