"""Where the `kvmbox` script starts: signals first, everything else after.

The interpreter and our imports take tens of milliseconds. A signal that comes then must end kvmbox with
status 130, as later; Python's own answer would be a traceback, or death by the signal.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from kvmbox import early
from kvmbox.cli.descriptors import open_standard_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Final, NoReturn

INTERRUPTED: Final = 130
_OTHER_SPAWNER: Final = ("-h", "--help", "--without")
"""Options of `kvmbox run` that want no spawner, or another one."""
_SAME_SPAWNER: Final = {"--sandbox": ("process", "per-device"), "--seccomp": ("filter",)}
"""Options of which some values, these, want the spawner of a plain run."""
_EARLY_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    early.received.append(number)
    raise KeyboardInterrupt


def _has_plain_device_processes(arguments: list[str]) -> bool:
    """Whether this is a `kvmbox run` whose spawner is surely wanted; a wrong no costs 20 ms."""
    if arguments[:1] != ["run"]:
        return False
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in _OTHER_SPAWNER:
            return False
        if name in _SAME_SPAWNER and (value if equals else following) not in _SAME_SPAWNER[name]:
            return False
    return True


def entry_point() -> NoReturn:
    """The `kvmbox` script."""
    try:
        for number in _EARLY_SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _interrupt)
        open_standard_descriptors()
        if _has_plain_device_processes(sys.argv[1:]):
            # Imports make garbage for nobody to collect; `kvmbox run` enables it again when they are done.
            gc.disable()
            from kvmbox.remote import head_start

            head_start.start()
        from kvmbox.cli import main

        main.entry_point()
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
