"""Signals that end or suspend a run, and the pipe that wakes the main loop for signals and other threads.

A handler can interrupt the main thread anywhere, even while it holds a lock. So a handler only stores the
signal. The signal also writes a byte to the wake-up pipe, poll returns, and the main loop acts. If a signal
is ignored when kvmbox starts (nohup, a background job of a shell), it stays ignored. At the end all handlers
are restored.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from types import FrameType
from typing import Any

from kvmbox.base.light_typing import signal
from kvmbox.host.process import early_signals
from kvmbox.host.process.early_signals import END_SIGNALS, IMPATIENCE


class Wakeup:
    """A pipe that makes the main loop's poll return: written by signals and by other threads."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()  # nobody writes to a number that is somebody else's by now
        self._previous = -1
        self._installed = False

    def install(self) -> None:
        """From now on, every signal with a Python handler writes to this pipe."""
        self._previous = signal.set_wakeup_fd(self._write_end, warn_on_full_buffer=False)
        self._installed = True

    def wake(self) -> None:
        """Make poll return. Any thread; a full pipe wakes as well. Once closed, it does nothing."""
        with self._lock:
            if self._write_end >= 0:
                with suppress(BlockingIOError):
                    os.write(self._write_end, b"\0")

    def clear(self) -> None:
        """Take all wake-ups."""
        try:
            while os.read(self.read_end, 4096):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Undo `install` and close."""
        if self._installed:
            signal.set_wakeup_fd(self._previous)
        with self._lock:
            os.close(self.read_end)
            os.close(self._write_end)
            self._write_end = -1


class SignalHandlers:
    """The handlers of one run. Belongs to the main thread."""

    def __init__(
        self,
        *,
        suspend: Callable[[], None],
        resume: Callable[[], None],
        give_up: Callable[[], bool],
        others: Collection[int] = (),
    ) -> None:
        """`suspend` is called before the process stops, `resume` once it goes on (both mind the terminal);
        `give_up` after `IMPATIENCE` end signals: where it says that the run is not decided, KeyboardInterrupt
        is raised, once, wherever the main thread is. Signals among `others` are somebody else's.
        """
        self.ended_by: int | None = None
        """The first signal that asked for the end, or None."""
        self._count = 0
        self._gave_up = False
        self._suspend = suspend
        self._resume = resume
        self._give_up = give_up
        self._others = frozenset(others)
        self._found: dict[int, Any] = {}

    def install(self) -> None:
        """Handle all signals that are not ignored, and the signals that were received before."""
        for number in END_SIGNALS:
            if number not in self._others:
                self._take(number, self._end)
        self._take(signal.SIGTSTP, self._stop)
        self._take(signal.SIGCONT, self._continue)
        before = early_signals.hand_over()
        if before:
            self.ended_by = before[0]
            self._count += len(before)

    def _take(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        if early_signals.is_ours(number):
            self._found[number] = signal.signal(number, handler)

    def restore(self) -> None:
        """Restore all previous handlers. Idempotent."""
        while self._found:
            number, handler = self._found.popitem()
            signal.signal(number, handler)

    @property
    def reason(self) -> str | None:
        """What ended the run, in words, or None."""
        if self.ended_by is None:
            return None
        from signal import Signals

        try:
            return f"ended by {Signals(self.ended_by).name}"
        except ValueError:  # a real-time signal between SIGRTMIN and SIGRTMAX has no name
            return f"ended by {self.ended_by}"

    def _end(self, number: int, _frame: FrameType | None) -> None:
        if self.ended_by is None:
            self.ended_by = number
        self._count += 1
        if self._count < IMPATIENCE:
            return
        # The user waits for a write that nobody takes, or for something that should have ended and has not.
        # Once the outcome is decided, only such a write is left, and the status stays as it is.
        if early_signals.breakable:
            raise KeyboardInterrupt
        if not self._gave_up and self._give_up():
            self._gave_up = True
            raise KeyboardInterrupt

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._suspend()
        # SIGSTOP cannot be handled and needs no handler to be put back: the shell sees a stopped job.
        os.kill(os.getpid(), signal.SIGSTOP)

    def _continue(self, _number: int, _frame: FrameType | None) -> None:
        self._resume()
