"""Deadlines of device processes, kept by one timerfd of the host.

Every reply contains the next deadline of its process. The thread that received the reply sets the timer, and
the main thread, which polls the timer, sends ADVANCE. A process is advanced at most once per `MIN_INTERVAL`
ns. So a guest that programs the PIT to tick every microsecond, or a hostile process, causes a bounded number
of wake-ups, and the model coalesces the ticks in between.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Final

from kvmbox.host.time.guest_clock import GuestClock

MIN_INTERVAL: Final = 100_000
"""Least guest time between two `advance` of one process, in ns: 10,000 wake-ups a second."""

LENIENCE: Final = 50_000_000
"""How late, in ns of guest time, a deadline may be handled before guest time stands still."""

# <sys/timerfd.h>; the os module has these only from Python 3.13 on.
_TFD_CLOEXEC: Final = os.O_CLOEXEC
_TFD_NONBLOCK: Final = os.O_NONBLOCK
_CLOCK_MONOTONIC: Final = 1


class _Timespec(ctypes.Structure):
    """struct timespec, <time.h>."""

    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    """struct itimerspec, <time.h>."""

    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_libc = ctypes.CDLL(None, use_errno=True)
_timerfd_create = _libc.timerfd_create
_timerfd_create.argtypes = (ctypes.c_int, ctypes.c_int)
_timerfd_create.restype = ctypes.c_int
_timerfd_settime = _libc.timerfd_settime
_timerfd_settime.argtypes = (
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(_Itimerspec),
    ctypes.c_void_p,
)
_timerfd_settime.restype = ctypes.c_int


class Timerfd:
    """One timer of the kernel. Readable, by poll, once it has expired."""

    def __init__(self, *, blocks: bool = False) -> None:
        """`blocks`: whether a read of the descriptor waits for the expiration."""
        flags = _TFD_CLOEXEC if blocks else _TFD_CLOEXEC | _TFD_NONBLOCK
        self.descriptor = _timerfd_create(_CLOCK_MONOTONIC, flags)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_create: {os.strerror(number)}")

    def arm(self, nanoseconds: int) -> None:
        """Expire once, in `nanoseconds` (at once for 0). This replaces the previous setting."""
        # All zero would disarm the timer.
        seconds, rest = divmod(max(1, nanoseconds), 1_000_000_000)
        self._set(_Itimerspec(_Timespec(0, 0), _Timespec(min(seconds, 1 << 40), rest)))

    def disarm(self) -> None:
        """Never expire."""
        self._set(_Itimerspec())

    def _set(self, setting: _Itimerspec) -> None:
        # SAFETY: the structure lives for the call; the kernel copies it.
        if _timerfd_settime(self.descriptor, 0, ctypes.byref(setting), None) < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"timerfd_settime: {os.strerror(number)}")

    def clear(self) -> None:
        """Take the expiration, so that poll waits again."""
        try:
            os.read(self.descriptor, 8)
        except BlockingIOError:
            return  # it was re-armed in between

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class DeadlineTimer:
    """The earliest of many deadlines, by name, in guest nanoseconds. Thread-safe."""

    def __init__(self, clock: GuestClock, timer: Timerfd) -> None:
        self._clock = clock
        self._timer = timer
        self._lock = threading.Lock()
        self._deadlines: dict[str, int] = {}
        self._advanced: dict[str, int] = {}
        self._armed: int | None = None

    @property
    def descriptor(self) -> int:
        """Readable, by poll, when a deadline has come."""
        descriptor: int = self._timer.descriptor
        return descriptor

    def clear(self) -> None:
        """Take the expiration, so that poll waits again."""
        self._timer.clear()

    def close(self) -> None:
        """Close the timer. Idempotent."""
        self._timer.close()

    def set(self, name: str, deadline: int | None) -> None:
        """`name` must be advanced at `deadline`, or never (None)."""
        with self._lock:
            if deadline is None:
                self._deadlines.pop(name, None)
            else:
                # The least interval counts from the last time that the process was told the time.
                earliest = self._advanced.get(name, -MIN_INTERVAL) + MIN_INTERVAL
                self._deadlines[name] = max(deadline, earliest)
            self._arm()

    def lend(self, nanoseconds: int) -> bool:
        """Let guest time run until the first deadline, or for so long, and for `LENIENCE` more. Return what
        `GuestClock.lend` does. By the main thread, before it sleeps for so long, and when it is awake.
        """
        with self._lock:
            first = min(self._deadlines.values(), default=None)
            until = None if first is None else self._clock.until(first)
            return self._clock.lend(LENIENCE + (nanoseconds if until is None else min(nanoseconds, until)))

    def due(self) -> list[str]:
        """The names whose deadline has expired, earliest first. Their deadlines are removed."""
        with self._lock:
            now = self._clock.now()
            due = sorted((d, name) for name, d in self._deadlines.items() if d <= now)
            for _, name in due:
                del self._deadlines[name]
                self._advanced[name] = now
            self._armed = None
            self._arm()
            return [name for _, name in due]

    def rearm(self) -> None:
        """The clock was released or held: set the host's timer anew."""
        with self._lock:
            self._armed = None
            self._arm()

    def _arm(self) -> None:
        earliest = min(self._deadlines.values(), default=None)
        if earliest == self._armed:
            return
        self._armed = earliest
        delay = None if earliest is None else self._clock.until(earliest)
        if delay is None:
            self._timer.disarm()
        else:
            self._timer.arm(delay)
