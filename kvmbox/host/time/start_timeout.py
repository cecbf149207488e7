"""`--timeout` during the start of a run, when nothing else checks the clock.

`StartTimeout` is for a process that belongs to kvmbox. The main thread may be in any system call: it waits
for the spawner, for device processes, or for a slow disk. So a kernel timer sends SIGALRM. Its handler raises
an exception in the main thread, wherever the main thread is. Everything that is open is then closed, as after
any error.

`StartDeadline` is for a program that uses kvmbox and owns its signals. Each wait for a process ends at `at`.
Every failure after that is a time-out. The wait for a disk that hangs is not limited.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Self

from kvmbox.base.errors import KvmboxError, StartTimeoutError
from kvmbox.base.light_typing import signal

AGAIN_SECONDS: Final = 1.0
"""Python drops what is raised inside of a destructor: then the next alarm, so much later, ends the start."""

LONGEST_SECONDS: Final = 1e6
"""A start does not take so long; more than the kernel's timer can count may be asked for."""

LATE_SECONDS: Final = 100e-6
"""The alarm comes so much behind the deadline, so that rounding cannot put it before."""


def _expired(timeout: float, stage: str) -> StartTimeoutError:
    return StartTimeoutError(f"--timeout {timeout:g} s ran out before the guest ran", hint=f"so far: {stage}")


class StartDeadline:
    """A context that turns what failed behind the deadline into StartTimeoutError. Any thread."""

    def __init__(self, timeout: float, started: int, stage: Callable[[], str]) -> None:
        """As `StartTimeout`."""
        self._timeout = timeout
        self._stage = stage
        self.at: int | None = started + int(min(timeout, LONGEST_SECONDS) * 1e9)
        """In ns of the monotonic clock; None once that is over."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        late = isinstance(error, KvmboxError) and not isinstance(error, StartTimeoutError)
        if late and self._is_over():
            raise _expired(self._timeout, self._stage()) from error

    def over(self) -> None:
        """The main loop takes over; StartTimeoutError if it is too late for that. Idempotent."""
        if self._is_over():
            raise _expired(self._timeout, self._stage())
        self.at = None

    def _is_over(self) -> bool:
        return self.at is not None and time.monotonic_ns() >= self.at


class _Expired(BaseException):
    """No `except Exception` on its way takes it for a failure of something else."""


class StartTimeout:
    """A context that StartTimeoutError ends, unless `over` comes first. Belongs to the main thread.

    An alarm that was set before (`alarm 5; exec kvmbox`) is set again afterwards; if it comes meanwhile, it
    does what it would have done.
    """

    def __init__(self, timeout: float, started: int, stage: Callable[[], str]) -> None:
        """`timeout` is in seconds from `started`, ns of the monotonic clock. `stage` tells for the error how
        far the start has come.
        """
        self.at: int | None = None
        """No wait needs a deadline of its own."""
        self._timeout = timeout
        self._deadline = started + int(min(timeout, LONGEST_SECONDS) * 1e9)
        self._stage = stage
        self._running = False
        self._found: Any = None
        self._found_timer = (0.0, 0.0)
        self._found_blocked = False
        self._entered = 0.0

    def __enter__(self) -> Self:
        # All that `_restore` needs comes first: the alarm may strike as soon as there is a handler.
        self._entered = time.monotonic()
        self._found = signal.getsignal(signal.SIGALRM)
        self._found_blocked = signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._found_timer = signal.getitimer(signal.ITIMER_REAL)
        try:
            self._arm()
        except BaseException as error:
            # Without `__exit__`, which is only called behind this method.
            self._running = False
            self._restore()
            if isinstance(error, _Expired):
                raise _expired(self._timeout, self._stage()) from None
            raise
        return self

    def _arm(self) -> None:
        self._running = True
        signal.signal(signal.SIGALRM, self._alarm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        first = max(0.0, self._deadline / 1e9 - time.monotonic()) + LATE_SECONDS
        if self._found_timer[0]:
            first = min(first, self._found_timer[0])
        signal.setitimer(signal.ITIMER_REAL, first, AGAIN_SECONDS)

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        # No call before the first statement's end: Python runs handlers in calls. `_alarm` knows of this one.
        was_running, self._running = self._running, False
        if was_running:
            self._restore()
        if isinstance(error, _Expired):
            raise _expired(self._timeout, self._stage()) from None

    def over(self) -> None:
        """The main loop takes over: nothing is raised any more. Idempotent."""
        if not self._running:
            return
        self._running = False
        self._restore()

    def _restore(self) -> None:
        first, interval = self._found_timer
        if first:
            first = max(1e-6, first - (time.monotonic() - self._entered))
        signal.setitimer(signal.ITIMER_REAL, first, interval)
        if self._found_blocked:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        signal.signal(signal.SIGALRM, self._found)

    def _alarm(self, number: int, frame: FrameType | None) -> None:
        if not self._running:
            return
        if time.monotonic_ns() >= self._deadline:
            # What is raised as `__exit__` begins would leave as it is, and the body has ended.
            if frame is not None and frame.f_code is StartTimeout.__exit__.__code__:
                return
            raise _Expired
        # Somebody else's.
        if callable(self._found):
            self._found(number, frame)
        elif self._found == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
