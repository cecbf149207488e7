"""Forks: tests that share a start are started from one snapshot, which is made when the first one needs it.

    boot with a start ── first ──▶ boot of the start, up to its `when` ──▶ snapshot ──▶ boot from the snapshot
                      └─ others ───────────────── wait for it ───────────────┘

The snapshots are in a folder of the session, which goes when the session does.
"""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from concurrent.futures import Future
from typing import Any, Self

from kvmbox.base.outcome import CLEAN, KVMBOX_FAILED
from kvmbox.tools.smoke.execute.executor import Executor, forward
from kvmbox.tools.smoke.suite.command_line import making_of
from kvmbox.tools.smoke.suite.test_case import NOT_BEGUN, Boot, Observation, Origin, Start, no_result


class ForkingExecutor:
    """Boots on `inner`, which sees no starts: it gets boots that make a snapshot, and boots from one."""

    def __init__(self, inner: Executor) -> None:
        self._inner = inner
        # Boots are submitted by the caller, and by whoever tells that a snapshot is made.
        self._lock = threading.RLock()
        self._cancelled = False
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._snapshots: dict[Origin, Future[str | Observation]] = {}

    @property
    def slots(self) -> int:
        """How many boots are useful at a time."""
        return self._inner.slots

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot, once there is the snapshot that it starts from."""
        if boot.start is None:
            return self._begin(boot)
        future: Future[Observation] = Future()
        self._snapshot_of(boot.start).add_done_callback(lambda done: self._fork(boot, done, future))
        return future

    def cancel(self) -> None:
        """End all boots now."""
        with self._lock:
            self._cancelled = True
            self._inner.cancel()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self.cancel()
            self._inner.__exit__(*exception)
        finally:
            if self._folder is not None:
                self._folder.cleanup()

    def _begin(self, boot: Boot) -> Future[Observation]:
        with self._lock:
            if not self._cancelled:
                return self._inner.submit(boot)
        future: Future[Observation] = Future()
        future.set_result(NOT_BEGUN)
        return future

    def _snapshot_of(self, start: Start) -> Future[str | Observation]:
        """The file of the snapshot, or what was seen of a start that has none."""
        found = self._snapshots.get(start.origin)
        if found is not None:
            return found
        made = self._snapshots[start.origin] = Future()
        try:
            path = self._path(len(self._snapshots))
        except OSError as error:
            words = f"cannot make a folder for snapshots: {error.strerror}"
            seen = no_result(KVMBOX_FAILED, words, "TMPDIR says where temporary folders are made")
            made.set_result(_failed(start, seen))
            return made
        try:
            making = self._begin(making_of(start, path))
        except BaseException as error:  # others wait for it, now or later
            made.set_exception(error)
            raise
        making.add_done_callback(lambda done: _made(start, path, done, made))
        return made

    def _path(self, number: int) -> str:
        """Where a snapshot is to be. Raises OSError."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="kvmbox-starts-", ignore_cleanup_errors=True)
        name = self._folder.name
        if "=" in name:  # where --snapshot-when would end the text
            raise OSError(errno.EINVAL, f"there is a '=' in {name}")
        return os.path.join(name, f"{number}.snap")

    def _fork(self, boot: Boot, made: Future[str | Observation], future: Future[Observation]) -> None:
        """There is a snapshot, or will be none."""
        try:
            found = made.result()
            if isinstance(found, Observation):
                future.set_result(found)
                return
            begun = self._begin(boot.replaced(start=None, snapshot=found))
        except BaseException as error:  # noqa: BLE001 - raised again in whoever asks for the result
            future.set_exception(error)
            return
        begun.add_done_callback(lambda done: forward(done, future, lambda seen: seen))


def _made(start: Start, path: str, done: Future[Observation], made: Future[str | Observation]) -> None:
    """The boot that makes a snapshot has ended."""
    error = done.exception()
    if error is not None:
        made.set_exception(error)
        return
    seen = done.result()
    if seen.status != CLEAN:
        made.set_result(_failed(start, seen))
    elif not os.path.exists(path):
        made.set_result(_failed(start, seen.replaced(status=KVMBOX_FAILED, reason="no snapshot was written")))
    else:
        made.set_result(path)


def _failed(start: Start, seen: Observation) -> Observation:
    """What is told of each test that needs `start`."""
    words = f"the start '{start.name}' ({start.origin}) cannot be made: {seen.reason}"
    return seen.replaced(reason=words, start_failed=True, steps_done=0)
