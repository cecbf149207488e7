"""Runs a command, watches its output, and ends the command as soon as the output tells enough."""

from __future__ import annotations

import contextlib
import enum
import os
import re
import selectors
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Final

LIMIT: Final = 8 << 20
"""Bytes of output after which a command is ended: a guest may print for ever."""
# Escape sequences of ECMA-48: CSI with its parameters, or a two-byte one.
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-9;?=]*[ -/]*[@-~]|[()][0-9A-Z]|[=>78cDEHMNOZ])")
_END_S: Final = 10.0
"""How long a command may take to end after SIGTERM."""


class End(enum.Enum):
    """Why a command is over."""

    ITSELF = "it ended by itself"
    SEEN = "its output told enough"
    TIME = "time ran out"
    FLOOD = "it printed too much"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a command did."""

    end: End
    status: int
    """Its exit status; what SIGTERM made of it where it did not end by itself."""
    output: str
    """stdout as text, without escape sequences."""
    errors: str
    """stderr."""
    seconds: float


def plain(data: bytes) -> str:
    """What a terminal would show of `data`, escape sequences and carriage returns left out."""
    return _ESCAPES.sub("", data.decode(errors="replace")).replace("\r", "")


def observe(
    command: Sequence[str],
    *,
    timeout_s: float,
    enough: Callable[[str, str], bool] = lambda _output, _errors: False,
    typed: Sequence[tuple[str, str]] = (),
) -> Observation:
    """Run `command` until it ends, `enough` of stdout and stderr is seen, or time runs out.

    Each pair of `typed` is a regular expression, looked for behind what the one before has found in stdout,
    and what is typed then. Without any, there is no input.
    """
    start = time.monotonic()
    stdin = subprocess.PIPE if typed else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        typist = _Typist(process.stdin, typed)

        def seen_enough(output: str, errors: str) -> bool:
            typist.see(output)
            return enough(output, errors)

        try:
            end, output, errors = _follow(process.stdout, process.stderr, start + timeout_s, seen_enough)
            if end is not End.ITSELF:
                process.terminate()
            status = process.wait(_END_S if end is not End.ITSELF else None)
        finally:
            process.kill()
    return Observation(end, status, plain(output), errors.decode(errors="replace"), time.monotonic() - start)


class _Typist:
    """Types what belongs to what is seen."""

    def __init__(self, keys: IO[bytes] | None, typed: Sequence[tuple[str, str]]) -> None:
        self._keys = keys
        self._left = list(typed)
        self._position = 0

    def see(self, output: str) -> None:
        """Look at all of the output so far."""
        while self._left and self._keys is not None:
            pattern, text = self._left[0]
            found = re.compile(pattern).search(output, self._position)
            if found is None:
                return
            self._position = found.end()
            del self._left[0]
            with contextlib.suppress(BrokenPipeError):  # it has ended, which its status tells
                os.write(self._keys.fileno(), text.encode())


def _follow(
    stdout: IO[bytes], stderr: IO[bytes], deadline: float, enough: Callable[[str, str], bool]
) -> tuple[End, bytes, bytes]:
    """Read both streams to their end, or until there is another reason to stop."""
    seen = {stdout.fileno(): bytearray(), stderr.fileno(): bytearray()}
    output, errors = seen.values()
    end = End.ITSELF
    with selectors.DefaultSelector() as selector:
        for descriptor in seen:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and end is End.ITSELF:
            left = deadline - time.monotonic()
            if left <= 0:
                end = End.TIME
            for key, _ in selector.select(max(0.0, left)):
                data = os.read(key.fd, 1 << 16)
                seen[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
            if end is End.ITSELF and enough(plain(bytes(output)), errors.decode(errors="replace")):
                end = End.SEEN
            elif len(output) + len(errors) > LIMIT:
                end = End.FLOOD
    return end, bytes(output), bytes(errors)
