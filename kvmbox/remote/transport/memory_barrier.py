"""The full memory barrier between a store and a load, for memory that another side reads at the same time."""

from __future__ import annotations

import threading
from typing import Final

_barrier: Final = threading.Lock()


def fence() -> None:
    """Make all earlier stores of this thread visible before any later load.

    Taking a lock and giving it back are atomic instructions, which are full barriers on x86.
    """
    _barrier.acquire()
    _barrier.release()
