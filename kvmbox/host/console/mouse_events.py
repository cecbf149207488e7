"""What a person does with a mouse, as events of the PS/2 mouse (`devices.ps2.mouse`). Pure.

Here, as on a screen, y counts downwards, and a wheel turned away from the user counts up. An event travels
over a console that is the keyboard's in a control sequence of ECMA-48 with a private parameter, so that a
dialogue moves the mouse wherever it can type.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from kvmbox.base.errors import UsageError
from kvmbox.devices.ps2.mouse import (
    BACK,
    EVENT,
    EVENT_MARK,
    FORWARD,
    LEFT,
    MIDDLE,
    MOST_COUNTS,
    MOST_NOTCHES,
    RELEASED,
    RIGHT,
)

BUTTON_NAMES: Final = {"left": LEFT, "right": RIGHT, "middle": MIDDLE, "back": BACK, "forward": FORWARD}
FARTHEST: Final = 0x7FFF
"""Counts of one movement."""
MOST_WHEEL: Final = 1000
"""Notches of one turn of the wheel."""

SEQUENCE: Final = re.compile(rb"\x1b\[=([0-9]{1,3});([0-9]{1,5});([0-9]{1,5});([0-9]{1,3})m")
"""An event: the fields behind the mark, each without a sign."""

_UNSIGNED: Final = EVENT.format.replace("h", "H").replace("b", "B")

_WORDS: Final = "move DX DY, press BUTTON, release BUTTON, click BUTTON and wheel NOTCHES"


def _event(change: int = 0, dx: int = 0, dy: int = 0, notches: int = 0) -> bytes:
    return EVENT.pack(EVENT_MARK, change, dx, -dy, -notches)


def _steps(distance: int, most: int) -> list[int]:
    """`distance` in pieces that one event can tell."""
    sign = -1 if distance < 0 else 1
    whole, rest = divmod(abs(distance), most)
    return [sign * most] * whole + ([sign * rest] if rest else [])


def moved(dx: int, dy: int, *, at_once: bool = False) -> bytes:
    """Move to the right and down. `at_once`: within one report, whose counters overflow if that is too far.

    >>> moved(300, -1).hex(" ", 7)
    '0000ff00010000 00002d00000000'
    """
    if max(abs(dx), abs(dy)) > FARTHEST:
        raise UsageError(f"the mouse moves {FARTHEST} counts at most, not {dx} and {dy}")
    if at_once:
        return _event(dx=dx, dy=dy)
    across, down = _steps(dx, MOST_COUNTS), _steps(dy, MOST_COUNTS)
    count = max(len(across), len(down))
    pairs = zip(across + [0] * (count - len(across)), down + [0] * (count - len(down)), strict=True)
    return b"".join(_event(dx=right, dy=lower) for right, lower in pairs)


def pressed(button: str) -> bytes:
    """Press a button. Raises UsageError for one that the mouse does not have."""
    return _event(_button(button))


def released(button: str) -> bytes:
    """Release it."""
    return _event(_button(button) | RELEASED)


def clicked(button: str) -> bytes:
    """Press and release it."""
    return pressed(button) + released(button)


def wheeled(notches: int) -> bytes:
    """Turn the wheel, away from the user if `notches` is positive."""
    if abs(notches) > MOST_WHEEL:
        raise UsageError(f"the wheel turns {MOST_WHEEL} notches at most, not {notches}")
    return b"".join(_event(notches=step) for step in _steps(notches, MOST_NOTCHES))


def _button(name: str) -> int:
    try:
        return BUTTON_NAMES[name.lower()]
    except KeyError:
        known = ", ".join(BUTTON_NAMES)
        raise UsageError(f"the mouse has no button {name!a}", hint=f"its buttons are {known}") from None


def acted(text: str) -> bytes:
    """What a text tells to do, such as "move 10 -5, click left". Raises UsageError.

    >>> acted("move 10 -5, wheel 1").hex(" ", 7)
    '00000a00050000 000000000000ff'
    """
    made = bytearray()
    for action in text.split(","):
        match action.split():
            case ["move", dx, dy] if _is_number(dx) and _is_number(dy):
                made += moved(int(dx), int(dy))
            case ["wheel", notches] if _is_number(notches):
                made += wheeled(int(notches))
            case ["press", button]:
                made += pressed(button)
            case ["release", button]:
                made += released(button)
            case ["click", button]:
                made += clicked(button)
            case _:
                raise UsageError(f"{action.strip()!a} is nothing that a mouse does", hint=f"it does {_WORDS}")
    return bytes(made)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?[0-9]{1,6}", text, re.ASCII) is not None


def sequences(events: bytes) -> bytes:
    """Events as control sequences, for a console that is the keyboard's."""
    made = bytearray()
    for _, change, dx, dy, dz in EVENT.iter_unpack(events):
        made += b"\x1b[=%d;%d;%d;%dm" % (change, dx & 0xFFFF, dy & 0xFFFF, dz & 0xFF)
    return bytes(made)


def event_of(sequence: re.Match[bytes]) -> bytes | None:
    """The event of a match of `SEQUENCE`; None if it has none."""
    change, dx, dy, dz = (int(number) for number in sequence.groups())
    if change > 0xFF or max(dx, dy) > 0xFFFF or dz > 0xFF:
        return None
    return struct.pack(_UNSIGNED, EVENT_MARK, change, dx, dy, dz)
