"""A measured process: started, read while it runs, never waited for without a limit, never left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Self

READ_SIZE: Final = 1 << 16
MAX_OUTPUT: Final = 1 << 26
"""More output than any measurement makes; a guest that floods is ended, not kept."""
MAX_MESSAGES: Final = 1 << 16
END_SECONDS: Final = 2.0
"""How long a process may take to end after SIGTERM."""


class MeasurementError(Exception):
    """This measurement gave nothing. The message, one line, is shown in place of the number."""


class Child:
    """One process, and what it has printed so far. A context manager: it ends with it."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        timeout: float,
        cpu: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start it. `timeout` is seconds for all that is asked of it; `cpu` the only CPU that it may use;
        `environment` what it has in its environment besides ours.

        MeasurementError if it cannot be started.
        """
        self.output = bytearray()
        """Its stdout so far."""
        self.messages = bytearray()
        """Its stderr so far, as much as is kept."""
        self._deadline = time.monotonic() + timeout
        self._timeout = timeout
        allowed = os.sched_getaffinity(0)
        try:
            # Inherited by the child. This thread's own mask, so that no code runs between fork and exec.
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            self.started = time.monotonic_ns()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**os.environ, **(environment or {})},
                # Ctrl-C is ours: what was measured so far is still to be printed.
                process_group=0,
            )
        except OSError as error:
            raise MeasurementError(f"cannot start {command[0]}: {error.strerror}") from error
        finally:
            if cpu is not None:
                os.sched_setaffinity(0, allowed)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._streams = {
            self._process.stdout.fileno(): self.output,
            self._process.stderr.fileno(): self.messages,
        }
        self._poller = select.poll()
        for descriptor in self._streams:
            self._poller.register(descriptor, select.POLLIN)
        self.pid = self._process.pid
        self.ended: int | None = None
        """CLOCK_MONOTONIC in ns when its end was seen."""

    def read_until(self, enough: Callable[[], bool]) -> bool:
        """True once `enough()`, False at the end of both streams. MeasurementError at the time limit."""
        while not enough():
            if not self._streams:
                return False
            left = self._deadline - time.monotonic()
            if left <= 0:
                raise MeasurementError(f"no end within {self._timeout:g} s")
            for descriptor, _ in self._poller.poll(left * 1000):
                self._take(descriptor)
        return True

    def _take(self, descriptor: int) -> None:
        data = os.read(descriptor, READ_SIZE)
        if not data:
            self._poller.unregister(descriptor)
            del self._streams[descriptor]
            return
        kept = self._streams[descriptor]
        if kept is self.messages:
            kept += data[: MAX_MESSAGES - len(kept)]
        elif len(kept) + len(data) > MAX_OUTPUT:
            raise MeasurementError(f"more than {MAX_OUTPUT} bytes of output")
        else:
            kept += data

    def finish(self) -> int:
        """Read to the end and reap it; its exit status, negative for a signal."""
        self.read_until(lambda: False)
        try:
            status = self._process.wait(max(self._deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired as error:
            raise MeasurementError(f"no end within {self._timeout:g} s") from error
        self.ended = time.monotonic_ns()
        return status

    def reason(self, status: int | None) -> str:
        """Why it failed: the error on its stderr, the outcome in its --stats, or how it ended."""
        lines = [line.strip() for line in self.messages.decode("utf-8", "replace").splitlines()]
        for mark in ("error: ", "outcome "):
            for line in lines:
                if mark in line:
                    return line.partition(mark)[2].strip()
        if status is not None and status < 0:
            return f"killed by {signal.Signals(-status).name}"
        first = next((line for line in lines if line and not line.startswith("kvmbox: ")), "no result")
        return first if status is None else f"{first} (status {status})"

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting for it."""
        if self._process.poll() is None:
            self._process.terminate()

    def end(self) -> None:
        """End it if it runs: SIGTERM, then SIGKILL. Idempotent."""
        self.ask_to_end()
        if self._process.poll() is None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        self._streams.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.end()


def end_all(children: Iterable[Child]) -> None:
    """End several: all get their signal first, so that they end beside each other."""
    running = list(children)
    for child in running:
        child.ask_to_end()
    for child in running:
        child.end()
