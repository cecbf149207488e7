"""Signals from the first line of a command to its last, and callbacks for a start that is interrupted.

The launcher (docs/adr/launcher.md) starts the interpreter with blocked end signals. `listen` installs a
handler for these signals and unblocks them. The handler always records the signal. Whether the handler also
raises KeyboardInterrupt depends on the phase of the command:

- During imports the handler does not raise. Python can drop an exception that is raised in the middle of an
  import: in a destructor, in the callback of a weak reference, or in C code that clears errors. `check` is
  called between two steps, and ends the command.
- While a command works, the handler raises (`raising`), because the command may wait anywhere. If Python
  drops the exception, Python reports this, and the handler is called again a moment later. In any case the
  recorded signal leads to status 130 at the end.
- After a run takes over (`hand_over`), and after the status is decided, the handler does not raise. The
  remaining work is bounded. The only exception is writing to a stderr that nobody reads: there (`breakable`),
  several signals interrupt the write.

This module knows nothing about commands. `kvmbox.cli` changes the phases.
"""

from __future__ import annotations

import os
import sys

from kvmbox.base.light_typing import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, Final

_NOT_OURS: Final = frozenset(
    {
        signal.SIGKILL,
        signal.SIGSTOP,
        signal.SIGTSTP,  # suspends
        signal.SIGCONT,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGCHLD,  # ignored by default
        signal.SIGURG,
        signal.SIGWINCH,
        signal.SIGPIPE,  # ignored by Python, and reported by write
        signal.SIGXFSZ,
        signal.SIGSEGV,  # a fault of our own: no Python handler could run
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
    }
)

END_SIGNALS: Final = tuple(sorted(signal.valid_signals() - _NOT_OURS))
"""Every signal whose default action kills the process. A command ends in order instead."""

IMPATIENCE: Final = 3
"""The number of end signals that interrupt even a blocked write, or an end that hangs."""

MASK_VARIABLE: Final = "KVMBOX_SIGMASK"
"""The original signal mask, from the launcher: 16 hexadecimal digits, bit n - 1 is signal n."""

AGAIN_SECONDS: Final = 0.01
"""How long after a dropped KeyboardInterrupt it is raised again."""

received: list[int] = []
"""Signal numbers, in order."""

raising = False
"""Whether the handler raises KeyboardInterrupt."""

breakable = False
"""Whether the main thread does nothing but write to a descriptor that may take for ever to take it."""

answered = False
"""Whether a run accounts for the signals, so that notes do not decide the status."""

exit_callbacks: list[Callable[[], None]] = []
"""Callbacks that end what was started early, if no run has taken it over. They do not raise."""


def listen() -> None:
    """Record end signals from now on, including those that the launcher has blocked. Main thread, once.

    A signal that is ignored when kvmbox starts stays ignored, and a handler that C code has installed stays:
    Python could not put it back.
    """
    for number in END_SIGNALS:
        if is_ours(number):
            signal.signal(number, _note)
    sys.unraisablehook = _dropped
    held = os.environ.pop(MASK_VARIABLE, None)
    if held is not None:
        mask = int(held, 16)
        signal.pthread_sigmask(
            signal.SIG_SETMASK, {number for number in signal.valid_signals() if mask >> (number - 1) & 1}
        )


def is_ours(number: int) -> bool:
    """Whether a handler for the signal may be replaced: nobody ignores it, and Python could put it back."""
    # None is a handler from C, as that of the faulthandler module for SIGABRT.
    return signal.getsignal(number) not in (signal.SIG_IGN, None)


def check() -> None:
    """End the command here if a signal has asked for it: raises KeyboardInterrupt."""
    if received:
        raise KeyboardInterrupt


def hand_over() -> list[int]:
    """Return the signals so far. From now on the caller handles all signals with its own handlers."""
    global raising, answered
    raising, answered = False, True
    taken = received.copy()
    received.clear()
    return taken


def _note(number: int, _frame: FrameType | None) -> None:
    received.append(number)
    if raising or (breakable and len(received) >= IMPATIENCE):
        raise KeyboardInterrupt


def _dropped(unraisable: Any) -> None:
    """Python drops an exception: not that one."""
    if raising and isinstance(unraisable.exc_value, KeyboardInterrupt):
        # Not from in here: Python would drop it again.
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        return
    sys.__unraisablehook__(unraisable)
