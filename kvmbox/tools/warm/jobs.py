"""What waits for a boot process: orders and the futures of their results. Any thread."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from itertools import islice
from typing import Final

from kvmbox.tools.warm.result import WarmResult, lost

CANCELLED: Final = "the pool was closed"


class Job:
    """One order, from `submit` to its result."""

    def __init__(self, order: bytes, timeout: float | None, *, spawns: bool) -> None:
        """`timeout` is the option of that name, in seconds, if there is one. `spawns` says whether the boot
        wants the spawner of a plain run.
        """
        self.order = order
        self.timeout = timeout
        self.spawns = spawns
        self.future: Future[WarmResult] = Future()


class JobQueue:
    """The jobs that no boot process has, and whether there will be more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: deque[Job] = deque()
        self._closed = False
        self.cancelled = False
        """Whether nobody waits for results any more."""

    def put(self, job: Job) -> None:
        """Queue `job`. RuntimeError if the queue is closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("the pool is closed")
            self._pending.append(job)

    def take(self) -> Job | None:
        """The next job that nobody has cancelled: it runs from now on."""
        with self._lock:
            while self._pending:
                job = self._pending.popleft()
                if job.future.set_running_or_notify_cancel():
                    return job
        return None

    def close(self, *, cancel: bool) -> None:
        """There will be no more jobs; with `cancel`, none of those that wait is wanted."""
        with self._lock:
            self._closed = True
            self.cancelled |= cancel
            dropped = list(self._pending) if cancel else []
            if cancel:
                self._pending.clear()
        for job in dropped:
            if not job.future.cancel():  # somebody else did
                continue
            job.future.set_running_or_notify_cancel()

    def fail_all(self, reason: str, hint: str | None) -> None:
        """Every job that waits has failed."""
        while (job := self.take()) is not None:
            job.future.set_result(lost(reason, hint))

    def upcoming(self, count: int) -> list[bool]:
        """Of at most `count` jobs that come next, whether they want the spawner of a plain run."""
        with self._lock:
            return [job.spawns for job in islice(self._pending, count)]

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
