"""The terminal on stdin: raw while the guest uses it, and restored in every case.

Several runs on one terminal
----------------------------
Two runs of one job (`make -j2`, `xargs -P`) share a terminal, and end in either order. Three rules leave it
as the first of them found it, without a lock or a file that they share:

- What is raw already is left alone, and there is nothing to put back: it is raw because of another run, which
  puts back what that one found, or because the person wants it so.
- What has left raw mode since is left alone: another run has put back what it found, or a shell has taken the
  terminal back.
- Else what was found is put back.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final


def _raw(settings: list[Any]) -> list[Any]:
    """What `tcgetattr` gave, made raw: of the terminal that is raw already, the same."""
    import termios

    raw: list[Any] = [*settings[:6], list(settings[6])]
    raw[0] &= ~(
        termios.BRKINT | termios.ICRNL | termios.INLCR | termios.INPCK | termios.ISTRIP | termios.IXON
    )
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    raw[6][termios.VMIN] = 1
    raw[6][termios.VTIME] = 0
    return raw


NO_DESCRIPTOR: Final = -1
"""For what stands for stdin where its mode is somebody else's business."""


class RawTerminal:
    """Raw mode of one descriptor. A no-op where it is no terminal, or not ours to change."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._found: list[Any] | None = None
        self._left = False
        self.is_terminal = os.isatty(descriptor)
        if self.is_terminal:
            import termios  # noqa: F401 - a shared object, which a confined process could not load later

    @property
    def foreground(self) -> bool:
        """Whether reading it and changing it would not stop us (SIGTTIN, SIGTTOU)."""
        try:
            return self.is_terminal and os.tcgetpgrp(self._descriptor) == os.getpgrp()
        except OSError:
            return False

    def enter(self) -> None:
        """Make it raw, but for output processing: the guest's line feeds stay readable.

        Also makes it raw again, after somebody else (a shell that took it back) has changed it.
        """
        if self._left or not self.foreground:
            return
        import termios

        now = termios.tcgetattr(self._descriptor)
        raw = _raw(now)
        if now == raw:
            return
        self._found = now
        # TCSANOW: to wait until output has drained is to wait for whoever reads the terminal.
        termios.tcsetattr(self._descriptor, termios.TCSANOW, raw)

    def restore(self) -> None:
        """Put back what was found. Idempotent; a terminal that is gone, or the shell's, is left alone."""
        if self._found is None:
            return
        import termios

        found, self._found = self._found, None
        if self.foreground:
            with contextlib.suppress(termios.error, OSError):
                now = termios.tcgetattr(self._descriptor)
                if now == _raw(now):
                    termios.tcsetattr(self._descriptor, termios.TCSANOW, found)

    def leave(self) -> None:
        """Restore, for good: `enter` does nothing any more."""
        self._left = True
        self.restore()
