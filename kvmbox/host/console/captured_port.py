"""A serial port's other end in memory: what the guest prints is kept, and a program answers.

    com1 = Capture()
    with Machine("kernel.elf", serial={"COM1": com1}) as vm:
        com1.expect(rb"login: ", timeout=5)
        com1.send(b"root\\n")

Any thread may call any of it. The output is bounded: of a guest that prints more than `limit` bytes the last
ones are kept, and the others counted. Input is not: what is sent waits for the guest, which reads when it
likes; what the guest has not read when it ends is lost, as on any serial line.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from typing import Final

from kvmbox.base.errors import ExpectError, UsageError
from kvmbox.host.console.sent_input import Typed, slice_of

DEFAULT_LIMIT: Final = 1 << 20
"""How many bytes of output are kept."""

TAIL_SIZE: Final = 200
"""How much of the output's end an ExpectError tells."""

MOST_PATIENCE_S: Final = 0.05
"""How long a search that found nothing rests, at most, before it looks at new output."""

SEARCH_SHARE: Final = 10
"""A search rests so many times as long as it took: a guest that floods does not make it take the CPU."""


class Capture:
    """The in-memory end of one serial port, or of the debug console, of one machine."""

    def __init__(self, *, limit: int = DEFAULT_LIMIT) -> None:
        """`limit` is how many bytes of output are kept. UsageError if that is not positive."""
        if limit < 1:
            raise UsageError(f"a Capture cannot keep {limit} bytes")
        self.limit = limit
        self.typed = Typed()
        """What was sent and not yet read by the guest."""
        self._changed = threading.Condition()
        self._kept = bytearray()
        self._dropped = 0
        self._searched = 0  # where in all output `expect` goes on
        self._claimed = False
        self._ended = False

    def __repr__(self) -> str:
        return f"<Capture: {len(self.output)} bytes>"

    @property
    def output(self) -> bytes:
        """What was printed so far: the last `limit` bytes of it."""
        with self._changed:
            return bytes(self._kept)

    @property
    def dropped(self) -> int:
        """How many bytes were printed before those in `output`."""
        with self._changed:
            return self._dropped

    def send(self, data: bytes | str) -> None:
        """Type `data`, text as UTF-8: the guest reads it when its UART has room. Never waits, also before the
        start.
        """
        self.typed.send(data.encode() if isinstance(data, str) else data)

    def expect(
        self, pattern: str | bytes | re.Pattern[bytes], timeout: float | None = None
    ) -> re.Match[bytes]:
        """Wait until `pattern` is found behind what the last `expect` found; returns the match.

        Text is matched as UTF-8. `timeout` is in seconds, None waits for as long as the guest runs.
        Raises ExpectError if the time is over, or the guest has ended, without it.
        """
        wanted = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                began = time.monotonic()
                printed = self._dropped + len(self._kept)
                start = max(0, self._searched - self._dropped)
                found = wanted.search(bytes(self._kept[start:]))
                if found is not None:
                    self._searched = self._dropped + start + found.end()
                    return found
                now = time.monotonic()
                if self._ended:
                    raise self._not_seen(wanted, "before the guest ended")
                if deadline is not None and now >= deadline:
                    raise self._not_seen(wanted, f"within {timeout:g} s")
                self._wait_for_more(printed, slice_of(deadline))
                if (rest := min(SEARCH_SHARE * (now - began), MOST_PATIENCE_S)) > 0:
                    self._changed.wait_for(lambda: self._ended, rest)

    def _wait_for_more(self, printed: int, seconds: float) -> None:
        self._changed.wait_for(
            lambda: self._ended or self._dropped + len(self._kept) != printed, timeout=seconds
        )

    def _not_seen(self, wanted: re.Pattern[bytes], when: str) -> ExpectError:
        output = bytes(self._kept)
        shown = repr(output[-TAIL_SIZE:])[1:] if output else "nothing"
        return ExpectError(
            f"{repr(wanted.pattern)[1:]} was not seen {when}; the output ends with {shown}", output=output
        )

    # --- The machine's side -------------------------------------------------------------------------------

    def claim(self) -> None:
        """A machine takes it. UsageError if one had it before: output of two guests would be mixed."""
        with self._changed:
            if self._claimed:
                raise UsageError("a Capture belongs to one machine, and this one has been used")
            self._claimed = True

    def append(self, data: bytes) -> None:
        """The guest has printed `data`. Never waits for anybody who looks at it."""
        with self._changed:
            self._kept += data
            excess = len(self._kept) - self.limit
            if excess > 0:
                del self._kept[:excess]
                self._dropped += excess
            self._changed.notify_all()

    def end(self) -> None:
        """There is no more output. Idempotent."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class CaptureStream:
    """A Capture as the console sees it: like an `OutputStream` that is never slow."""

    error: OSError | None = None
    congested = False
    stuck = False

    def __init__(
        self, name: str, capture: Capture, *, limit: int | None, limit_reached: Callable[[], None]
    ) -> None:
        """`limit_reached` hears that the run has printed `limit` bytes."""
        self.name = name
        self.appended = 0
        self._capture = capture
        self._limit = limit
        self._limit_reached = limit_reached
        self._lock = threading.Lock()  # two ports may share it

    @property
    def dropped(self) -> int:
        """Bytes that the Capture keeps no more."""
        return self._capture.dropped

    def start(self) -> None:
        """There is no thread to start."""

    def append(self, data: bytes) -> None:
        """More output of the guest."""
        with self._lock:
            reached = self._limit is not None and self.appended + len(data) > self._limit
            if reached and self._limit is not None:
                data = data[: self._limit - self.appended]
            self.appended += len(data)
            self._capture.append(data)
        if reached:
            self._limit_reached()

    def wait_for_room(self, _wanted: Callable[[], bool]) -> None:
        """There is room."""

    def wake(self) -> None:
        """Nobody waits."""

    def flush(self, _seconds: float) -> int:
        """No byte is unwritten; nor will there be another one."""
        self._capture.end()
        return 0


def checked(option: str, backend: object) -> Capture:
    """The backend of a port that is no text. Raises UsageError."""
    if not isinstance(backend, Capture):
        raise UsageError(f"{option}: {backend!r} is neither text nor a Capture")
    return backend
