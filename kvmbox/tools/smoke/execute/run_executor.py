"""Boots as processes `kvmbox run`: each has an interpreter of its own, and is watched from outside.

A thread per boot reads the console, types what the dialogue says, and ends the run when all is said. `kvmbox
run` keeps the time limit. If it does not even end by itself, it is killed: its processes die with it. It gets
SIGTERM when its thread here ends, so nothing is left of a session that is killed.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Self

from kvmbox.base.outcome import KVMBOX_FAILED
from kvmbox.host.process.child_command import child_command
from kvmbox.tools.smoke.execute.output_watch import OutputWatch
from kvmbox.tools.smoke.suite.command_line import expectations, is_for_run, run_arguments
from kvmbox.tools.smoke.suite.test_case import NOT_BEGUN, Boot, Observation, no_result

READ_SIZE: Final = 1 << 16
MOST_OUTPUT: Final = 64 << 20
MOST_MESSAGES: Final = 1 << 16
GRACE_S: Final = 10.0
"""How long a run may take beyond its own time limit: to start, to end."""
END_S: Final = 5.0
"""How long a run may take to end after SIGTERM."""


class RunExecutor:
    """Boots by `kvmbox run`."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._command = tuple(child_command())  # this `kvmbox`, which ends with this process
        self._lock = threading.Lock()
        self._running: set[_Run] = set()
        self._threads: list[threading.Thread] = []
        self._cancelled = False
        self._count = 0
        self._folder = tempfile.TemporaryDirectory(prefix="kvmbox-smoke-")

    def submit(self, boot: Boot) -> Future[Observation]:
        """Begin a boot."""
        future: Future[Observation] = Future()
        self._count += 1
        facts = os.path.join(self._folder.name, f"{self._count}.json")
        thread = threading.Thread(
            target=self._boot, args=(boot, facts, future), name=f"kvmbox smoke {self._count}", daemon=True
        )
        self._threads = [one for one in self._threads if one.is_alive()]
        self._threads.append(thread)
        thread.start()
        return future

    def cancel(self) -> None:
        """End all boots now."""
        with self._lock:
            self._cancelled = True
            for run in self._running:
                run.ask_to_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.cancel()
        for thread in self._threads:
            thread.join()
        self._folder.cleanup()

    def _boot(self, boot: Boot, facts: str, future: Future[Observation]) -> None:
        try:
            future.set_result(self._observe(boot, facts))
        except BaseException as error:  # noqa: BLE001 - raised again in whoever asks for the result
            future.set_exception(error)

    def _observe(self, boot: Boot, facts: str) -> Observation:
        with self._lock:
            if self._cancelled:
                return NOT_BEGUN
            try:
                run = _Run([*self._command, *run_arguments(boot, facts)], boot)
            except OSError as error:
                words = f"cannot start {self._command[0]}: {error.strerror}"
                return no_result(KVMBOX_FAILED, words)
            self._running.add(run)
        try:
            return run.observe(facts)
        finally:
            with self._lock:
                self._running.discard(run)


class _Run:
    """One `kvmbox run`."""

    def __init__(self, command: Sequence[str], boot: Boot) -> None:
        """Start it. Raises OSError."""
        self._boot = boot
        self._watch = OutputWatch(
            boot.dialogue,
            () if expectations(boot) else boot.stop_all,
            [one for one in boot.stop_any if not is_for_run(one)],
        )
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            process_group=0,  # Ctrl-C is for us: what runs is ended in order
            # A suite says all of it: what configures `kvmbox run` in this directory is not meant.
            env={**os.environ, "KVMBOX_CONFIG": "none"},
        )
        self._output = bytearray()
        self._messages = bytearray()
        self._typed = bytearray(self._watch.begin())
        self._asked: float | None = None
        self._stopped = False

    def ask_to_end(self) -> None:
        """SIGTERM, without waiting."""
        if self._asked is None:
            self._asked = time.monotonic()
            self._process.send_signal(signal.SIGTERM)

    def observe(self, facts: str) -> Observation:
        """Read it to its end."""
        try:
            self._read()
        finally:
            self._process.kill()  # nothing, where it has ended
            status = self._process.wait()
            for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        seconds = time.monotonic() - self._began
        messages = self._messages.decode("utf-8", "replace")
        reason, hint = _from_messages(messages)
        if status < 0:
            reason, hint = f"kvmbox was killed by {signal.Signals(-status).name}", None
        ending = no_result(status, reason or f"status {status}", hint).encoded()
        facts_read = _read_facts(facts)
        if facts_read.get("status") == status:
            ending |= {name: value for name, value in facts_read.items() if value}
        screen = facts_read.get("screen")
        return Observation.decoded(
            ending,
            seconds=seconds,
            output=bytes(self._output),
            messages=messages,
            stopped=self._stopped,
            steps_done=self._watch.steps_done,
            screen=screen if isinstance(screen, dict) else None,
        )

    def _read(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        stdin = self._process.stdin.fileno()
        os.set_blocking(stdin, False)
        kept = {self._process.stdout.fileno(): self._output, self._process.stderr.fileno(): self._messages}
        poller = select.poll()
        for descriptor in kept:
            poller.register(descriptor, select.POLLIN)
        can_type = True
        while kept:
            if self._typed and can_type:
                poller.register(stdin, select.POLLOUT)
            left = self._seconds_left()
            if left <= 0:
                self._process.kill()
            for descriptor, _ in poller.poll(max(left, 0.05) * 1000):
                if descriptor == stdin:
                    poller.unregister(stdin)
                    can_type = self._type(stdin)
                    continue
                data = os.read(descriptor, READ_SIZE)
                if not data:
                    poller.unregister(descriptor)
                    del kept[descriptor]
                    continue
                self._take(kept[descriptor], data)

    def _seconds_left(self) -> float:
        now = time.monotonic()
        left = self._began + self._boot.timeout + GRACE_S - now
        return left if self._asked is None else min(left, self._asked + END_S - now)

    def _take(self, kept: bytearray, data: bytes) -> None:
        if kept is self._messages:
            kept += data[: MOST_MESSAGES - len(kept)]
            return
        kept += data[: MOST_OUTPUT - len(kept)]
        self._typed += self._watch.feed(data)
        if self._watch.stop and not self._stopped:
            self._stopped = True
            self.ask_to_end()

    def _type(self, stdin: int) -> bool:
        """Type as much as fits; False if nobody reads it any more."""
        try:
            del self._typed[: os.write(stdin, self._typed)]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return True


def _read_facts(path: str) -> dict[str, Any]:
    """What `--json` has told, or nothing: a run that was killed has written nothing."""
    found: Any = None
    with suppress(OSError, ValueError), open(path, "rb") as file:
        found = json.load(file)
    with suppress(OSError):
        os.unlink(path)
    return found if isinstance(found, dict) else {}


def _from_messages(messages: str) -> tuple[str, str | None]:
    """The reason and the hint of the error that `kvmbox run` has printed."""
    reason, hint = "", None
    for line in messages.splitlines():
        if line.startswith("kvmbox: error: ") and not reason:
            reason = line.removeprefix("kvmbox: error: ")
        elif line.startswith("hint: ") and reason and hint is None:
            hint = line.removeprefix("hint: ")
    return reason, hint
