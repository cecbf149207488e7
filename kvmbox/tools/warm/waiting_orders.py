"""What waits for a boot process: orders and the futures of their results. Any thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from itertools import islice
from typing import Final

from kvmbox.tools.warm.boot_result import WarmResult, lost

CANCELLED: Final = "the pool was closed"


class Job:
    """One order, from `submit` to its result."""

    def __init__(self, order: bytes, timeout: float | None, *, spawns: bool, prepares: bool = False) -> None:
        """`timeout` is the option of that name, in seconds, if there is one. `spawns` says whether the boot
        wants the spawner of a plain run, and `prepares` whether its machine may be prepared ahead.
        """
        self.order = order
        self.timeout = timeout
        self.spawns = spawns
        self.prepares = prepares
        self.has_begun = False
        self.future: Future[WarmResult] = Future()


class JobQueue:
    """The jobs that no boot process has, and whether there will be more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[Job] = deque()
        self._latest: Job | None = None
        self._recurs = False  # whether the latest job is as the one before
        self._closed = False
        self.cancelled = False
        """Whether nobody waits for results any more."""

    def put(self, job: Job) -> None:
        """Queue `job`. RuntimeError if the queue is closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._pending.append(job)
            self._recurs = self._latest is not None and self._latest.order == job.order
            self._latest = job

    def take(self, fits: Callable[[Job], bool] = lambda _job: True) -> Job | None:
        """The next job that nobody has cancelled: it runs from now on. None if it does not fit."""
        with self._lock:
            while self._pending and (self._pending[0].future.cancelled() or fits(self._pending[0])):
                job = self._pending.popleft()
                if job.has_begun or job.future.set_running_or_notify_cancel():
                    job.has_begun = True
                    return job
        return None

    def give_back(self, job: Job) -> None:
        """A job that was taken is the next one again."""
        with self._lock:
            if not self.cancelled:
                self._pending.appendleft(job)
                return
        job.future.set_result(lost(CANCELLED))

    def close(self, *, cancel: bool) -> None:
        """There will be no more jobs; with `cancel`, none of those that wait is wanted."""
        with self._lock:
            self._closed = True
            self.cancelled |= cancel
            dropped = list(self._pending) if cancel else []
            if cancel:
                self._pending.clear()
        for job in dropped:
            if job.has_begun:
                job.future.set_result(lost(CANCELLED))
            elif job.future.cancel():  # else somebody has done so
                job.future.set_running_or_notify_cancel()

    def fail_all(self, reason: str, hint: str | None) -> None:
        """Every job that waits has failed."""
        while (job := self.take()) is not None:
            job.future.set_result(lost(reason, hint))

    def upcoming(self, count: int) -> list[Job]:
        """The jobs that come next, at most `count`."""
        with self._lock:
            return list(islice(self._pending, count))

    @property
    def likely(self) -> Job | None:
        """A job as the one that will perhaps come behind those: the last two were alike."""
        with self._lock:
            return self._latest if self._recurs and not self._closed else None

    @property
    def is_closed(self) -> bool:
        """Whether there will be no more jobs than those that wait."""
        with self._lock:
            return self._closed

    @property
    def is_over(self) -> bool:
        """Whether there is no job, and will be none."""
        with self._lock:
            return self._closed and not self._pending
