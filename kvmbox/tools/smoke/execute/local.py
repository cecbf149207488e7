"""The executor of this machine: warm workers, and `kvmbox run` for what a worker cannot do."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Self

from kvmbox.tools.smoke.execute.executor import Executor
from kvmbox.tools.smoke.execute.run_executor import RunExecutor
from kvmbox.tools.smoke.suite.test_case import Boot, Observation


class LocalExecutor:
    """Boots on this machine, at most `slots` at a time. Each of two executors starts when it is needed."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._executors: dict[Callable[[int], Executor], Executor] = {}
        self._stack = ExitStack()
        self._cancelled = False

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot."""
        from kvmbox.tools.smoke.execute.warm_executor import WarmExecutor, can_boot

        kind: Callable[[int], Executor] = WarmExecutor if can_boot(boot) else RunExecutor
        executor = self._executors.get(kind)
        if executor is None:
            executor = self._executors[kind] = self._stack.enter_context(kind(self.slots))
            if self._cancelled:
                executor.cancel()
        return executor.submit(boot)

    def cancel(self) -> None:
        """End all boots now."""
        self._cancelled = True
        for executor in tuple(self._executors.values()):
            executor.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cancel()
        self._stack.close()
