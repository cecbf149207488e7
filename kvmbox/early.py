"""Signals from the first line of a command to its last, and what was started before a run is there to end it.

The launcher (docs/adr/0016) starts the interpreter with the signals that ask for the end blocked. `listen`
installs a handler for them, and lets in those that waited. The handler always takes a note. Whether it raises
KeyboardInterrupt as well depends on where the command is:

- While modules are imported it does not: an exception that is raised in the middle of an import can be
  dropped, in a destructor, in a weak reference's callback, in C code that clears errors. `check` is called
  between two steps, and ends the command.
- While a command works it does (`raising`): a command may wait anywhere. If Python drops the exception
  nevertheless, the handler is called again a moment later where Python reports that, and the note makes the
  status 130 at the end in any case.
- From the moment in which a run takes over (`hand_over`), and from the moment in which a status is decided,
  it does not. What is left to do is bounded, but for writing to a stderr that nobody reads: there
  (`breakable`), a user who insists is heard.

Nothing in here knows what a command is; `kvmbox.cli` moves from one phase to the next.
"""

from __future__ import annotations

import os
import signal
import sys

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
"""Every signal whose default would kill: a command ends in order instead."""

IMPATIENCE: Final = 3
"""After how many signals that ask for the end whoever sends them means it."""

MASK_VARIABLE: Final = "KVMBOX_SIGMASK"
"""Where the launcher leaves the signal mask that it found: 16 hexadecimal digits, bit n - 1 is signal n."""

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
"""What ends that which was started early, for the case that nobody has taken it over. None of it raises."""


def listen() -> None:
    """Note the signals that ask for the end, those that the launcher held back too. Main thread, once.

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
    """The signals so far. From now on whoever calls this accounts for all of them, by handlers of its own."""
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
