"""What is typed on a terminal: kvmbox's own commands apart from what is the guest's.

Ctrl-A is the escape character, as in QEMU: Ctrl-A X ends the run, Ctrl-A H prints help, and Ctrl-A Ctrl-A
sends one Ctrl-A to the guest. This applies to a terminal only. All bytes of a pipe go to the guest.
"""

from __future__ import annotations

from typing import Final

from kvmbox.lean import Value

ESCAPE: Final = 0x01  # Ctrl-A

HELP: Final = ("Ctrl-A H: this help", "Ctrl-A X: leave kvmbox", "Ctrl-A Ctrl-A: send Ctrl-A to the guest")
"""One line each."""


class Keys(Value):
    """What was typed: `data` is the guest's, `leave` and `help_wanted` are commands for kvmbox."""

    data: bytes
    leave: bool = False
    help_wanted: bool = False


class EscapeParser:
    """Takes kvmbox's commands out of what is typed. The escape character may end one piece."""

    help = HELP

    def __init__(self) -> None:
        self._escaped = False

    def feed(self, typed: bytes) -> Keys:
        """What `typed` means; nothing behind a command to leave is looked at."""
        data = bytearray()
        help_wanted = False
        for byte in typed:
            if not self._escaped:
                if byte == ESCAPE:
                    self._escaped = True
                else:
                    data.append(byte)
                continue
            self._escaped = False
            if byte in b"xX":
                return Keys(bytes(data), leave=True, help_wanted=help_wanted)
            if byte in b"hH":
                help_wanted = True
            elif byte == ESCAPE:
                data.append(byte)
        return Keys(bytes(data), help_wanted=help_wanted)
