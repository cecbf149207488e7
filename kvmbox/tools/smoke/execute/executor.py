"""What boots guests: the interface that `engine` uses, whoever implements it.

An executor may boot in processes of this machine (`local`), in warm workers, or on other machines. It gives
`concurrent.futures` futures, which every such engine has or can make.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Protocol, Self, TypeVar

from kvmbox.tools.smoke.suite.test_case import Boot, Observation

_Result = TypeVar("_Result")


def forward(
    done: Future[_Result], future: Future[Observation], observation_of: Callable[[_Result], Observation]
) -> None:
    """Give `future` what `done` has got: what `observation_of` makes of the result, or the error."""
    error = done.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(observation_of(done.result()))


class Executor(Protocol):
    """Boots guests, at most `slots` at a time. A context manager: nothing of it is left behind."""

    @property
    def slots(self) -> int:
        """How many boots are useful at a time: the engine submits no more. It may change."""

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot. The result is how it ended; an exception is a failure of the executor itself.

        Called by one thread. What is wrong with the boot (a missing image, a crash) is an Observation.
        """

    def cancel(self) -> None:
        """End all boots now; their futures end soon, with whatever result. Idempotent, and never waits."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Cancel what still runs, and wait until nothing of it is left."""
