"""The executor of this machine: warm workers, and `kvmbox run` for what a worker cannot do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Self

from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.execute.run_executor import RunExecutor
from kvmbox.tools.smoke.suite.test_case import Boot, Observation


def _warm(slots: int) -> Executor:
    from kvmbox.tools.smoke.execute.warm_executor import WarmExecutor

    return WarmExecutor(slots)


class LocalExecutor:
    """Boots on this machine, at most `slots` at a time. Each of two executors starts when it is needed."""

    def __init__(
        self,
        slots: int,
        *,
        warm: Callable[[int], Executor] | None = _warm,
        cold: Callable[[int], Executor] = RunExecutor,
    ) -> None:
        """`warm` makes the executor with warm workers (None: there is none), `cold` the other one."""
        self.slots = slots
        self._make_warm = warm
        self._make_cold = cold
        self._warm: Executor | None = None
        self._cold: Executor | None = None
        self._stack = ExitStack()
        self._cancelled = False

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot."""
        from kvmbox.tools.smoke.execute.warm_executor import can_boot

        if self._make_warm is not None and can_boot(boot):
            if self._warm is None:
                self._warm = self._start(self._make_warm)
            return self._warm.submit(boot)
        if self._cold is None:
            self._cold = self._start(self._make_cold)
        return self._cold.submit(boot)

    def cancel(self) -> None:
        """End all boots now."""
        self._cancelled = True
        for executor in (self._warm, self._cold):
            if executor is not None:
                executor.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cancel()
        self._stack.close()

    def _start(self, make: Callable[[int], Executor]) -> Executor:
        executor = self._stack.enter_context(make(self.slots))
        if self._cancelled:
            executor.cancel()
        return executor
