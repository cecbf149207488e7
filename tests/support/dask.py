"""A Dask client without a cluster: workers are names, and tasks end when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from kvmbox import __version__
from kvmbox.tools.smoke.execute import dask_worker
from kvmbox.tools.smoke.execute.dask_executor import FETCH_THREAD, SCHEDULER

GOOD = {"version": __version__, "problem": None, "hardware": False}


@dataclass(eq=False)
class FakeTask:
    """A task, as `distributed.Future` shows it."""

    data: dict[str, Any]
    workers: list[str]
    key: str = ""
    status: str = "pending"
    value: Any = None
    error: BaseException | None = None
    is_kept: bool = False
    """Whether its worker is frozen with the result."""
    calls: list[Callable[[Any], None]] = field(default_factory=list)

    def result(self, timeout: float) -> Any:
        assert timeout > 0
        if self.is_kept:
            raise TimeoutError
        return self.value

    def exception(self) -> BaseException | None:
        return self.error

    def add_done_callback(self, call: Callable[[Any], None]) -> None:
        self.calls.append(call)

    def end(self, value: Any = None, *, status: str = "finished", error: BaseException | None = None) -> None:
        """The task ends, and its result is fetched."""
        self.value, self.status, self.error = value, status, error
        for call in self.calls:
            call(self)
        for thread in threading.enumerate():
            if thread.name == FETCH_THREAD:
                thread.join()


@dataclass
class FakeClient:
    """`probes` says what each worker answers; `stores` is every file that was sent, and to whom; `shares` are
    the keys of the tasks that each worker has. A worker in `frozen` answers once its event is set.
    """

    probes: dict[str, Any]
    threads: int = 1
    tasks: list[FakeTask] = field(default_factory=list)
    stores: list[tuple[str, str]] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    has: set[tuple[str, str]] = field(default_factory=set)
    full: set[str] = field(default_factory=set)
    shares: dict[str, tuple[str, ...]] = field(default_factory=dict)
    frozen: dict[str, threading.Event] = field(default_factory=dict)
    failure: Exception | None = None
    thaws: threading.Event | None = None
    """When the scheduler answers again, if it does not."""
    closed: bool = False

    def _scheduler(self) -> None:
        """Whatever needs its answer waits here."""
        if self.thaws is not None:
            self.thaws.wait()

    def nthreads(self) -> Mapping[str, int]:
        self._scheduler()
        if self.failure is not None:
            raise self.failure
        return dict.fromkeys(self.probes, self.threads)

    def wait_for(self, answers: Mapping[str, Future[Any]]) -> None:
        """Wait as long as workers may take for their answers, without a clock."""
        frozen = {*self.frozen, *([SCHEDULER] if self.thaws is not None else [])}
        wait([answer for asked, answer in answers.items() if asked not in frozen])

    def processing(self) -> Mapping[str, tuple[str, ...]]:
        self._scheduler()
        return self.shares

    def run(
        self, function: Callable[..., Any], *args: Any, workers: list[str], on_error: str
    ) -> Mapping[str, Any]:
        assert on_error == "return"
        self._scheduler()
        return {worker: self._call(worker, function, args) for worker in workers}

    def _call(self, worker: str, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if worker in self.frozen:
            self.frozen[worker].wait()
        if worker not in self.probes:
            return OSError("lost")
        if function is dask_worker.ping:
            return True
        if function is dask_worker.probe:
            return self.probes[worker]
        if function is dask_worker.has:
            return (worker, args[0]) in self.has
        if function is dask_worker.end:
            self.ended.append(worker)
            return None
        assert function is dask_worker.store
        if worker in self.full:
            return OSError(28, "No space left on device")
        self.stores.append((worker, args[0]))
        self.has.add((worker, args[0]))
        return True

    def submit(self, function: Callable[..., Any], *args: Any, **options: Any) -> FakeTask:
        assert function is dask_worker.boot
        assert options["allow_other_workers"] is False
        task = FakeTask(args[1], options["workers"], options["key"])
        self.tasks.append(task)
        return task

    def cancel(self, futures: list[FakeTask]) -> None:
        self._scheduler()
        for one in futures:
            one.end(status="cancelled")

    def close(self) -> None:
        self._scheduler()
        self.closed = True
