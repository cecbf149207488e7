"""The keys of a VNC client: keysyms of X11 (RFC 6143, section 7.5.4) as IBM's numbers of keys. Pure."""

from __future__ import annotations

from typing import Final

from kvmbox.devices.ps2.keyboard import RELEASED
from kvmbox.host.console.us_keyboard import NAMED_KEYS, stroke

_NAMES: Final = {
    0xFF08: "backspace",
    0xFF09: "tab",
    0xFF0D: "enter",
    0xFF13: "pause",
    0xFF14: "scroll_lock",
    0xFF1B: "escape",
    0xFF50: "home",
    0xFF51: "left",
    0xFF52: "up",
    0xFF53: "right",
    0xFF54: "down",
    0xFF55: "page_up",
    0xFF56: "page_down",
    0xFF57: "end",
    0xFF61: "print_screen",
    0xFF63: "insert",
    0xFF7F: "num_lock",
    0xFF8D: "keypad_enter",
    0xFFAA: "keypad_star",
    0xFFAB: "keypad_plus",
    0xFFAD: "keypad_minus",
    0xFFAE: "keypad_dot",
    0xFFAF: "keypad_slash",
    0xFFFF: "delete",
    **{0xFFB0 + digit: f"keypad_{digit}" for digit in range(10)},
    **{0xFFBE + number: f"f{number + 1}" for number in range(12)},
    0xFFE1: "shift",
    0xFFE2: "right_shift",
    0xFFE3: "ctrl",
    0xFFE4: "right_ctrl",
    0xFFE5: "caps_lock",
    0xFFE9: "alt",
    0xFFEA: "right_alt",
    0xFE03: "right_alt",
}


def change_of(keysym: int, *, down: bool) -> bytes:
    """The change of the key; nothing for one that a US keyboard does not have.

    A character is its key alone: the client sends Shift itself.

    >>> change_of(0x41, down=True).hex(), change_of(0xFF0D, down=False).hex()
    ('1f', 'ab')
    """
    if keysym in _NAMES:
        number = NAMED_KEYS[_NAMES[keysym]]
    else:
        changes = stroke(chr(keysym)) if 0x20 <= keysym < 0x7F else None
        if changes is None:
            return b""
        number = changes[len(changes) // 2 - 1]
    return bytes((number if down else number | RELEASED,))
