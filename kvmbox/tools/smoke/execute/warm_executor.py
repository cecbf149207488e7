"""Boots in warm workers (`kvmbox.tools.warm`): no interpreter start, and fresh processes for each boot.

A worker cannot be told to end a boot when a regular expression matches, so such boots are better made by
`run_executor`; `local` chooses.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import Future
from typing import Final, Self

from kvmbox.tools.smoke.execute.executor import forward
from kvmbox.tools.smoke.suite.command_line import is_for_run, machine_options
from kvmbox.tools.smoke.suite.test_case import NOT_BEGUN, Boot, Observation, Pattern
from kvmbox.tools.warm import WarmPool, WarmResult

_NANOSECONDS: Final = 1e-9


class WarmExecutor:
    """Boots in a pool of `slots` workers."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._pool = WarmPool(slots)
        self._closing: threading.Thread | None = None

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot, or queue it."""
        future: Future[Observation] = Future()
        if self._closing is not None:
            future.set_result(NOT_BEGUN)
            return future
        steps: list[tuple[str | bytes, bytes]] = [(_on_wire(one.when), one.send) for one in boot.dialogue]
        submitted = self._pool.submit(machine_options(boot), dialogue=steps)
        submitted.add_done_callback(lambda done: _pass_on(done, future))
        return future

    def cancel(self) -> None:
        """End all boots now."""
        if self._closing is None:
            self._closing = threading.Thread(
                target=self._pool.close, kwargs={"cancel": True}, name="kvmbox smoke end", daemon=True
            )
            self._closing.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cancel()
        assert self._closing is not None
        self._closing.join()


def can_boot(boot: Boot) -> bool:
    """Whether a warm worker does all that the boot asks for: it finds texts, and no regular expressions."""
    patterns = (*boot.stop_all, *boot.stop_any)
    return all(map(is_for_run, patterns)) and not any(
        step.when is not None and step.when.is_regex for step in boot.dialogue
    )


def _on_wire(pattern: Pattern | None) -> bytes:
    """A pattern for the console as the guest prints it: a line end may have a \\r."""
    if pattern is None:
        return b""
    source = pattern.text.encode("utf-8", "surrogateescape").replace(b"\r\n", b"\n")
    return rb"\r?\n".join(re.escape(part) for part in source.split(b"\n"))


def _pass_on(done: Future[WarmResult], future: Future[Observation]) -> None:
    if done.cancelled():
        future.set_result(NOT_BEGUN)
    else:
        forward(done, future, observation_of)


def observation_of(result: WarmResult) -> Observation:
    """A warm worker's result as an observation."""
    return Observation.decoded(
        result.encoded(),
        seconds=result.durations.get("total", 0) * _NANOSECONDS,
        output=result.output,
        messages="".join(f"{line}\n" for line in result.messages),
        steps_done=result.answered,
        screen=result.screen,
    )
