"""The screen of a machine that runs, for a program: the machine stands still for the moment of the look."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from kvmbox.errors import ExpectError
from kvmbox.run.standstill import Standstill, Visitor

if TYPE_CHECKING:
    from kvmbox.parts.screen.screen import Screen

LOOK_EVERY_S: Final = 0.05
"""How often `expect` looks."""


class _Look:
    """One look that somebody waits for."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.screen: Screen | None = None


class Screens(Visitor):
    """The looks of one machine. `ask` on any thread but the main loop's; everything else by that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted: list[_Look] = []
        self._read: Callable[[], Screen | None] | None = None
        self._standstill: Standstill | None = None
        self._last: Screen | None = None
        self._ended = False

    def ask(self) -> Screen | None:
        """What is on the screen now, or was when the guest ended; None if that is nothing."""
        look = _Look()
        with self._lock:
            if self._ended:
                return self._last
            self._wanted.append(look)
            standstill = self._standstill
        if standstill is not None:
            standstill.call()
        look.done.wait()
        return look.screen

    # --- The main loop's ----------------------------------------------------------------------------------

    def attend(self, standstill: Standstill, read: Callable[[], Screen | None]) -> None:
        """From now on, `read` looks at the machine while it stands still. It raises DeviceProcessError."""
        with self._lock:
            self._standstill, self._read = standstill, read
            waiting = bool(self._wanted)
        standstill.admit(self)
        if waiting:
            standstill.call()

    @property
    def wants(self) -> bool:
        """See `Visitor`."""
        return bool(self._wanted)

    def visit(self) -> None:
        """Look once for all who wait. Raises DeviceProcessError; then they get what the end leaves."""
        assert self._read is not None
        with self._lock:
            looks = self._wanted[:]
        screen = self._read()
        with self._lock:
            del self._wanted[: len(looks)]
        for look in looks:
            look.screen = screen
            look.done.set()

    def end(self, screen: Screen | None) -> None:
        """The guest has ended, or will not run: `screen` is what it has left."""
        with self._lock:
            self._ended, self._last = True, screen
            left, self._wanted = self._wanted, []
        for look in left:
            look.screen = screen
            look.done.set()


def expect(
    look: Callable[[], tuple[str, ...]],
    ended: threading.Event,
    pattern: str | re.Pattern[str],
    timeout: float | None,
) -> re.Match[str]:
    """Look until one of the forms of the text matches. Raises ExpectError when `timeout` seconds are over, or
    the guest has `ended`, without that.
    """
    wanted = re.compile(pattern)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        is_last = ended.is_set()  # before the look
        text, *others = look()
        for form in (text, *others):
            found = wanted.search(form)
            if found is not None:
                return found
        if is_last or (deadline is not None and time.monotonic() >= deadline):
            when = "before the guest ended" if is_last else f"within {timeout:g} s"
            told = f"shows {text!r}" if text else "is blank"
            raise ExpectError(
                f"{wanted.pattern!r} was not seen on the screen {when}; it {told}", output=text.encode()
            )
        ended.wait(LOOK_EVERY_S)
