"""What a program sends to a guest: to the keyboard, or to a serial port by a Capture."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

WAIT_SLICE_S: Final = 0.5
"""How long a thread waits before it looks around. CPython looks for signals before it waits for a lock: one
that comes between that and the wait does not end the wait, and Ctrl-C would be heard when the guest ends.
"""


def slice_of(deadline: float | None) -> float:
    """The seconds to wait now for what has until `deadline`, on the monotonic clock; None: for ever."""
    return WAIT_SLICE_S if deadline is None else min(max(deadline - time.monotonic(), 0.0), WAIT_SLICE_S)


class Typed:
    """What a program types: bytes on a serial line, or changes of keys. It waits for the guest. Any thread
    may call any of it.
    """

    def __init__(self) -> None:
        self.pending = bytearray()
        """What the guest has not taken: the main loop takes from its front."""
        self._lock = threading.Lock()
        self._notify: Callable[[int], None] | None = None
        self._sent = 0  # before there was a machine

    def send(self, data: bytes) -> None:
        """Type `data`. Never waits, also before the start."""
        with self._lock:
            self.pending += data
            notify = self._notify
            if notify is None:
                self._sent += len(data)
        if notify is not None:
            notify(len(data))

    def connect(self, notify: Callable[[int], None]) -> None:
        """There is a device now. `notify` is called with the number of bytes sent, by whichever thread
        sends.
        """
        with self._lock:
            self._notify = notify
            sent = self._sent
        if sent:
            notify(sent)
