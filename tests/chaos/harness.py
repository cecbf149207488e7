"""Faults for the device processes of a run, at random moments, and what the run made of them.

The moments are counted in what happens: a process is hit once it serves (again), after a pause that is a
random number of milliseconds without news from the run. So a slow host is hit at other places, not harder.
Everything random comes from one seed; the guest, as ever, does not run the same way twice.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.payload.gremlin import FAULTS
from tests.support.family import DEVICE_TYPES
from tests.support.patience import patience

PROGRAM: Final = str(Path(__file__).parent / "payload" / "program.py")
PATIENCE_MS: Final = patience(60_000)
LONGEST_PAUSE_MS: Final = 25
AT_ONCE: Final = 2
"""How many device types may be in trouble at a time."""

SIGNALS: Final = {"SIGKILL": signal.SIGKILL, "SIGSEGV": signal.SIGSEGV, "SIGSTOP": signal.SIGSTOP} | {
    fault: signal.SIGRTMIN + number for number, fault in enumerate(FAULTS)
}
HANGS: Final = ("SIGSTOP", "never")
"""What is found out after 500 ms only: one fault in `RARE` is such a one."""

RARE: Final = 12


@dataclass(frozen=True)
class Guest:
    """What to run. `typed` is fed to its input piece by piece, as faults come. `weights` says how often each
    device type is hit, in comparison: one in use is had again at once, an idle one when it is next probed.
    """

    name: str
    arguments: tuple[str, ...] = ()
    typed: bytes = b""
    weights: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(DEVICE_TYPES, 1))
    hangs: bool = True


@dataclass
class Result:
    """How a run ended. `faults` are (device type, fault) in their order."""

    status: int
    output: bytes
    messages: str
    numbers: dict[str, Any]
    faults: list[tuple[str, str]] = field(default_factory=list)
    stillborn: int = 0
    """How many replacements were killed as they came. Most are replaced in the same restart, but one that was
    faster than its death has answered first, and its loss is a restart of its own."""

    @property
    def restarts(self) -> int:
        """How many restarts kvmbox counted."""
        return sum(self.numbers["restarts"]["by_type"].values())


def undisturbed(guest: Guest, options: Sequence[str], directory: Path) -> Result:
    """The run as it is without faults, on the same design, without restarts."""
    report = directory / "undisturbed.json"
    command = [sys.executable, "-c", "from kvmbox.cli.entry import entry_point; entry_point()"]
    done = subprocess.run(
        [*command, "run", *options, "--json", str(report), *guest.arguments, guest.name],
        input=guest.typed,
        capture_output=True,
        timeout=PATIENCE_MS / 1000,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode(), json.loads(report.read_bytes()))


class Chaos:
    """One disturbed run. At most `limit` faults, and as many as the guest's life allows."""

    def __init__(
        self, guest: Guest, options: Sequence[str], directory: Path, *, seed: int, limit: int
    ) -> None:
        self._guest = guest
        self._options = options
        self._report = directory / "chaos.json"
        self._dice = random.Random(seed)
        self._seed = seed
        self._limit = limit
        self._faults: list[tuple[str, str]] = []
        self._serving: dict[str, int] = {}  # pidfds of processes that nothing was done to yet
        self._started: set[str] = set()  # types that have, or had, a process
        self._stillborn = 0
        self._news = b""
        self._kinds = [name for name in SIGNALS if not (name == "short" and "shm" in options)]

    def run(self) -> Result:
        """Run the guest to its end."""
        news, teller = os.pipe()
        restart = ("--on-device-crash", "restart", "--restart-budget", str(10 * self._limit + 10))
        process = subprocess.Popen(
            [
                *(sys.executable, PROGRAM, str(teller), str(self._seed), "run", *restart, *self._options),
                *("--json", str(self._report), *self._guest.arguments, self._guest.name),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[teller],
            bufsize=0,
        )
        os.close(teller)
        try:
            output, messages = self._follow(process, news)
            process.wait()
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            os.close(news)
            for pidfd in self._serving.values():
                os.close(pidfd)
        numbers = json.loads(self._report.read_bytes() or b"{}")
        return Result(process.returncode, output, messages, numbers, self._faults, self._stillborn)

    def _follow(self, process: subprocess.Popen[bytes], news: int) -> tuple[bytes, str]:
        """Read all that comes, and strike where it is quiet; returns stdout and stderr."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        seen = {process.stdout.fileno(): b"", process.stderr.fileno(): b"", news: b""}
        outputs = list(seen)[:2]
        poll = select.poll()
        for descriptor in seen:
            poll.register(descriptor, select.POLLIN)
        open_ones = set(seen)
        typed = memoryview(self._guest.typed)
        pause = self._dice.randrange(LONGEST_PAUSE_MS)
        while open_ones:
            struck = len(self._faults) < self._limit and self._can_strike()
            ready = poll.poll(pause if struck or typed else PATIENCE_MS)
            if not ready and not (struck or typed):
                raise AssertionError(f"nothing happened for {PATIENCE_MS} ms: {seen}")
            for descriptor, _ in ready:
                data = os.read(descriptor, 1 << 16)
                if data:
                    seen[descriptor] += data
                else:
                    poll.unregister(descriptor)
                    open_ones.discard(descriptor)
            if seen[news]:
                self._hear(seen[news])
                seen[news] = b""
            # Output comes all the time: it must not keep us from striking.
            if struck and (not ready or self._dice.randrange(4) == 0):
                self._strike()
                pause = self._dice.randrange(LONGEST_PAUSE_MS)
            if typed and self._serving and (not struck or self._dice.randrange(3) == 0):
                # All but the end, which ends the guest, is typed while there are faults to come.
                size = min(len(typed), self._dice.randrange(1, 40))
                process.stdin.write(typed[:size])
                typed = typed[size:]
            if not typed and not process.stdin.closed:
                process.stdin.close()
        return seen[outputs[0]], seen[outputs[1]].decode()

    def _hear(self, data: bytes) -> None:
        *lines, self._news = (self._news + data).split(b"\n")
        for line in lines:
            name, pid = line.decode().split()
            if pid == "0":
                self._stillborn += 1
                continue
            if name in self._serving:
                os.close(self._serving.pop(name))
            if name not in self._guest.weights:
                continue
            try:
                self._serving[name] = os.pidfd_open(int(pid))
                self._started.add(name)
            except ProcessLookupError:
                continue  # the run has ended, or somebody else was faster

    def _can_strike(self) -> bool:
        return bool(self._serving) and len(self._started) - len(self._serving) < AT_ONCE

    def _strike(self) -> None:
        names = sorted(self._serving)
        (name,) = self._dice.choices(names, [self._guest.weights[name] for name in names])
        hangs = self._guest.hangs and self._dice.randrange(RARE) == 0
        fault = self._dice.choice([kind for kind in self._kinds if (kind in HANGS) == hangs])
        pidfd = self._serving.pop(name)
        try:
            signal.pidfd_send_signal(pidfd, SIGNALS[fault])
            self._faults.append((name, fault))
        except ProcessLookupError:
            pass  # it is the end of the run
        finally:
            os.close(pidfd)
