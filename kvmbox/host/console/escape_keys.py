"""What is typed on a terminal: kvmbox's own commands apart from what is the guest's.

Ctrl-A is the escape character, as in QEMU: Ctrl-A X ends the run, Ctrl-A C gives what is typed to the monitor
or to the guest again, Ctrl-A H prints help, and Ctrl-A Ctrl-A sends one Ctrl-A to the guest. This applies to
a terminal only. All bytes of a pipe go to the guest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvmbox.base.value_classes import Value

ESCAPE: Final = 0x01  # Ctrl-A

HELP: Final = (
    *("Ctrl-A H: this help", "Ctrl-A X: leave kvmbox", "Ctrl-A C: to the monitor, and back to the guest"),
    "Ctrl-A Ctrl-A: send Ctrl-A to the guest",
)
"""One line each."""


class Keys(Value):
    """What was typed: `data` is the guest's, `leave` and `help_wanted` are commands for kvmbox. `monitor` is
    the monitor's; None: it is not concerned.
    """

    data: bytes
    leave: bool = False
    help_wanted: bool = False
    monitor: bytes | None = None


class EscapeParser:
    """Takes kvmbox's commands out of what is typed. The escape character may end one piece."""

    help = HELP

    def __init__(self) -> None:
        self._escaped = False
        self.in_monitor = False
        """Whether what comes next is the monitor's."""
        self.summon: Callable[[], Any] = lambda: None
        """Gives the monitor."""

    def feed(self, typed: bytes) -> Keys:
        """What `typed` means; nothing behind a command to leave is looked at."""
        data, monitor = bytearray(), bytearray()
        help_wanted, concerned = False, self.in_monitor
        for byte in typed:
            if not self._escaped:
                if byte == ESCAPE:
                    self._escaped = True
                else:
                    (monitor if self.in_monitor else data).append(byte)
                continue
            self._escaped = False
            if byte in b"xX":
                return Keys(bytes(data), leave=True, help_wanted=help_wanted)
            if byte in b"hH":
                help_wanted = True
            elif byte in b"cC":
                self.in_monitor, concerned = not self.in_monitor, True
            elif byte == ESCAPE:
                (monitor if self.in_monitor else data).append(byte)
        return Keys(bytes(data), help_wanted=help_wanted, monitor=bytes(monitor) if concerned else None)

    def tell_monitor(self, typed: bytes) -> None:
        """Give the monitor what was typed for it. It may leave by itself. Raises StartError."""
        self.in_monitor = self.summon().typed(typed, stays=self.in_monitor)
