"""Where the `kvmbox` script starts: signals first, everything else after.

The interpreter and our imports take tens of milliseconds. A signal that comes then must end kvmbox with
status 130, as later; Python's own answer would be a traceback, or death by the signal.
"""

from __future__ import annotations

import os
import signal

from kvmbox import early

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final, NoReturn

INTERRUPTED: Final = 130
_EARLY_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    early.received.append(number)
    raise KeyboardInterrupt


def entry_point() -> NoReturn:
    """The `kvmbox` script."""
    try:
        for number in _EARLY_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
        from kvmbox.cli import main

        main.entry_point()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
