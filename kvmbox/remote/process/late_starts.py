"""Device processes that start in the midst of a run: those of devices that the guest had not used before.

`on_demand` says when that is. The thread that makes the first request orders the process, as a thread
that replaces a lost one does, and the main thread watches it from then on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kvmbox.base.value_classes import Value
from kvmbox.remote.transport.interface import Opens


class Start(Value):
    """One start: when it began, in ns of the host's monotonic clock, and how long it took, in ns, until the
    process was jailed, or had `failed`.
    """

    at: int
    took: int
    failed: bool


class ProcessStarts:
    """The starts of one pool. Thread-safe."""

    def __init__(self, order: Callable[[str], Opens], news: threading.Event | None = None) -> None:
        """`order` starts the process of a name (`pool.DevicePool.start_member`). `news` is what a start sets
        for the main thread; a new event by default.
        """
        self.names: list[str] = []
        """The processes that start when they are needed."""
        self.made: dict[str, Start] = {}
        """The starts of those that were needed, in that order."""
        self.pause_time: Callable[[], None] = lambda: None
        self.resume_time: Callable[[], None] = lambda: None
        self._order = order
        self._wake: Callable[[], None] = lambda: None
        self._news = news or threading.Event()

    def attend(
        self, *, pause_time: Callable[[], None], resume_time: Callable[[], None], wake: Callable[[], None]
    ) -> None:
        """Before the first request: what stops and continues guest time while a process starts, and what
        wakes the main thread when it has.
        """
        self.pause_time, self.resume_time, self._wake = pause_time, resume_time, wake

    def start(self, name: str) -> Opens:
        """Start the process of a name; returns the link to it once it is jailed. Raises SandboxError."""
        began = time.monotonic_ns()
        failed = True
        try:
            link = self._order(name)
            failed = False
            return link
        finally:
            self.made[name] = Start(began, time.monotonic_ns() - began, failed)
            self._news.set()
            self._wake()

    def take_news(self) -> bool:
        """Whether a process has started since the last call. By the main thread."""
        if not self._news.is_set():
            return False  # and nothing is cleared: a process may start just now
        self._news.clear()
        return True
