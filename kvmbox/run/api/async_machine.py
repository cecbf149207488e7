"""A machine for a program that uses asyncio: what waits in `Machine` is awaited here.

Each call is made in a thread of its own, so any number of them may wait, on any number of machines. A task
that is cancelled while it waits stops the machine, because nothing else ends such a call. The cancellation
goes on when nothing of the machine is left, and its thread has ended.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Final, Self, TypeVar

from kvmbox.run.api.machine import Machine
from kvmbox.run.display.screen_protocol import TextScreen
from kvmbox.run.result.run_result import RunResult

_Result = TypeVar("_Result")


class AsyncMachine:
    """The calls of a `Machine` that wait. Errors are the same. What never waits is called on `machine`."""

    def __init__(self, machine: Machine) -> None:
        """`machine` has not been started. Raises TypeError for what is none, such as a guest's name."""
        if not isinstance(machine, Machine):
            raise TypeError(f"AsyncMachine takes a Machine, not {machine!r}: AsyncMachine(Machine(…))")
        self.machine: Final = machine

    def __repr__(self) -> str:
        return f"<AsyncMachine of {self.machine!r}>"

    async def __aenter__(self) -> Self:
        await self._call(self.machine.__enter__)
        return self

    async def __aexit__(self, *exception: Any) -> None:
        await self._call(partial(self.machine.__exit__, *exception))

    async def wait(self, timeout: float | None = None) -> RunResult:
        """See `Machine.wait`."""
        return await self._call(partial(self.machine.wait, timeout))

    async def expect(
        self, pattern: str | bytes | re.Pattern[bytes], timeout: float | None = None
    ) -> re.Match[bytes]:
        """See `Machine.expect`."""
        return await self._call(partial(self.machine.expect, pattern, timeout))

    async def screen(self) -> TextScreen:
        """See `Machine.screen`."""
        return await self._call(lambda: self.machine.screen)

    async def expect_screen(
        self, pattern: str | re.Pattern[str], timeout: float | None = None
    ) -> re.Match[str]:
        """See `Machine.expect_screen`."""
        return await self._call(partial(self.machine.expect_screen, pattern, timeout))

    async def expect_picture(
        self, similar_to: str | os.PathLike[str] | Any, timeout: float | None = None, **how: Any
    ) -> Any:
        """See `Machine.expect_picture`."""
        return await self._call(partial(self.machine.expect_picture, similar_to, timeout, **how))

    async def snapshot(self, path: str | os.PathLike[str]) -> None:
        """See `Machine.snapshot`."""
        await self._call(partial(self.machine.snapshot, path))

    async def stop(self) -> None:
        """See `Machine.stop`."""
        await self._call(self.machine.stop)

    async def _call(self, call: Callable[[], _Result]) -> _Result:
        made = _in_thread(call)
        try:
            return await asyncio.shield(made)
        except asyncio.CancelledError:
            await asyncio.gather(_in_thread(self.machine.stop), made, return_exceptions=True)
            raise


def _in_thread(call: Callable[[], _Result]) -> asyncio.Future[_Result]:
    done: Future[_Result] = Future()
    done.set_running_or_notify_cancel()  # whoever gives up waiting does not end the call

    def make() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again in whoever waits
            done.set_exception(error)

    thread = threading.Thread(target=make, name="kvmbox call", daemon=True)
    thread.start()
    made = asyncio.wrap_future(done)
    # It has nothing left to do by then, and whoever waits finds no thread of ours.
    made.add_done_callback(lambda one: None if one.cancelled() else thread.join())
    return made
