"""What runs on a Dask worker for `dask_executor`: functions of plain values.

A file is kept in the worker's own directory, which Dask removes when the worker ends. Each boot is a `kvmbox
run`: a process of its own, so that the worker can end it and no guest shares anything with the next.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Protocol

from kvmbox import __version__
from kvmbox.base.errors import KvmboxError
from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.execute.remote_values import boot_from, is_key, observation_data, with_files
from kvmbox.tools.smoke.execute.run_executor import RunExecutor
from kvmbox.tools.smoke.suite.test_case import NOT_BEGUN

CACHE: Final = "kvmbox-files"
_REMEMBERED: Final = 1000
"""How many ended sessions a worker remembers: their boots may still be on the way to it."""


class Worker(Protocol):
    """What of a `distributed.Worker` is used."""

    @property
    def local_directory(self) -> str: ...


def probe() -> dict[str, Any]:
    """What this worker is: `version` of kvmbox, `problem` (None: it can boot), `hardware` virtualization."""
    from kvmbox.tools.smoke.execute import host_requirements

    try:
        host_requirements.check_kvm()
        return {
            "version": __version__,
            "problem": None,
            "hardware": host_requirements.has_hardware_virtualization(),
        }
    except KvmboxError as error:
        return {"version": __version__, "problem": str(error), "hardware": False}


def ping() -> bool:
    """Tells that the worker answers."""
    return True


def has(key: str, dask_worker: Worker) -> bool:
    """Whether the worker has the file `key`."""
    return os.path.exists(_path(dask_worker, key))


def store(key: str, content: bytes, dask_worker: Worker) -> bool:
    """Keep a file. Raises ValueError if the content is not that of the key, and OSError."""
    path = _path(dask_worker, key)
    if hashlib.sha256(content).hexdigest() != key.partition("/")[0]:
        raise ValueError("the content of a file has changed on its way")
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(folder))
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)  # a file that is there is complete
    except BaseException:
        os.unlink(temporary)
        raise
    return True


class Boots:
    """The boots that run in this process, by session. Thread-safe."""

    def __init__(self, make: Callable[[], Executor] = lambda: RunExecutor(1)) -> None:
        """`make` makes the executor of one boot."""
        self._make = make
        self._lock = threading.Lock()
        self._running: dict[str, list[Executor]] = {}
        self._ended: deque[str] = deque(maxlen=_REMEMBERED)

    def boot(self, session: str, data: dict[str, Any], place: Callable[[str], str]) -> dict[str, Any]:
        """Boot, and wait for the end. `data` is `boot_data`, with keys for paths; `place` finds the files."""
        boot = with_files(boot_from(data), place)
        with self._make() as executor:
            with self._lock:
                if session in self._ended:
                    return observation_data(NOT_BEGUN)
                running = self._running.setdefault(session, [])
                running.append(executor)
            try:
                return observation_data(executor.submit(boot).result())
            finally:
                with self._lock:
                    running.remove(executor)
                    if not running:
                        self._running.pop(session, None)

    def end(self, session: str) -> None:
        """End the boots of a session, and begin no more of them. Does not wait."""
        with self._lock:
            self._ended.append(session)
            for executor in self._running.get(session, ()):
                executor.cancel()


_boots: Final = Boots()


def boot(session: str, data: dict[str, Any]) -> dict[str, Any]:
    """The task: one boot, on whichever worker it runs."""
    from distributed import get_worker

    worker: Worker = get_worker()
    return _boots.boot(session, data, lambda key: _path(worker, key))


def end(session: str) -> None:
    """End the boots of a session on this worker."""
    _boots.end(session)


def _path(worker: Worker, key: str) -> str:
    if not is_key(key):
        raise ValueError(f"{key!r} is no key of a file")
    return os.path.join(worker.local_directory, CACHE, key)
