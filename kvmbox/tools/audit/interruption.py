"""When an audit may be interrupted: between two steps, and never within one.

A KeyboardInterrupt in the middle of a step could leave a process that nobody knows of, or a directory that
nobody removes. So the signals that ask for the end are blocked, and let in where there is nothing half done.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Final

ENDING_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """The signals that ask for the end wait until what is inside is done, or calls `let_signals_in`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_signals_in() -> None:
    """Here a signal may be handled, which raises what its handler raises."""
    if signal.sigpending() & set(ENDING_SIGNALS):
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
