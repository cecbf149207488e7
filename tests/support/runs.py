"""A `kvmbox run` as a process, which can be watched and ended."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.support.family import Family
from tests.support.waiting import Stream, wait_readable

ENTRY = "from kvmbox.cli.entry import entry_point; entry_point()"
KVMBOX = (sys.executable, "-c", ENTRY)

DESIGNS: list[tuple[str, ...]] = [
    (),
    ("--sandbox", "none"),
    ("--sandbox", "thread"),
    ("--sandbox", "per-device"),
    ("--seccomp", "strict"),
    ("--ipc", "pipe"),
    ("--ipc", "shm"),
]
"""Options under which a guest must see the same machine."""


class Run:
    """One `kvmbox run`. Use it in a `with`: it does not outlive the test."""

    def __init__(
        self,
        *arguments: str | Path,
        command: Sequence[str] = KVMBOX,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        stdout: int | IO[Any] = subprocess.PIPE,
        stderr: int | IO[Any] = subprocess.PIPE,
        **options: Any,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, "run", *map(str, arguments)],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            bufsize=0,
            **options,
        )
        self.pid = self.process.pid
        if self.process.stdout is not None:
            self.stdout = Stream(self.process.stdout.fileno(), "stdout")
        if self.process.stderr is not None:
            self.stderr = Stream(self.process.stderr.fileno(), "stderr")
        self._family: Family | None = None

    @property
    def family(self) -> Family:
        """Its processes; for the first time while the guest runs."""
        if self._family is None:
            self._family = Family(self.pid)
        return self._family

    def send(self, data: bytes) -> None:
        """Write to its stdin, which must be a pipe."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def signal(self, number: int) -> None:
        """Send a signal to kvmbox itself."""
        self.process.send_signal(number)

    def status(self) -> int:
        """Its exit status, once it has ended; output is read meanwhile, so that nothing blocks it."""
        if self.process.stdout is not None:
            self.stdout.rest()
        if self.process.stderr is not None:
            self.stderr.rest()
        return self.exit_status()

    def exit_status(self) -> int:
        """Its exit status, once it has ended; nobody reads its output meanwhile."""
        pidfd = os.pidfd_open(self.pid)
        wait_readable(pidfd, "the end of kvmbox")
        os.close(pidfd)
        return self.process.wait()

    @property
    def output(self) -> bytes:
        """stdout, so far."""
        return self.stdout.seen

    @property
    def messages(self) -> str:
        """stderr, so far."""
        return self.stderr.seen.decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self._family is not None:
            self._family.close()


class Images:
    """Writes guests into a directory, and runs them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._count = 0

    def write(self, *fragments: bytes) -> Path:
        """The path of a new flat image."""
        self._count += 1
        path = self.directory / f"guest{self._count}.bin"
        path.write_bytes(b"".join(fragments))
        return path

    def run(self, code: bytes, *arguments: str | Path, **options: Any) -> Run:
        """Start `kvmbox run --boot real` on a guest of these bytes."""
        return Run("--boot", "real", *arguments, self.write(code), **options)


def error_lines(messages: str) -> list[str]:
    """The lines of stderr that report an error."""
    return [line for line in messages.splitlines() if line.startswith("kvmbox: error: ")]


def run_to_end(run: Run) -> tuple[int, bytes, str]:
    """Status, stdout and stderr of a run that ends by itself."""
    with run:
        status = run.status()
        return status, run.output, run.messages


def command_in(directory: Path) -> Path:
    """A file `kvmbox` that runs the sources."""
    directory.mkdir(parents=True)
    shim = directory / "kvmbox"
    python, sources = shlex.quote(sys.executable), shlex.quote(str(Path(__file__).parents[2]))
    shim.write_text(f'#!/bin/sh\nPYTHONPATH={sources} exec {python} -c "{ENTRY}" "$@"\n')
    shim.chmod(0o755)
    return shim
