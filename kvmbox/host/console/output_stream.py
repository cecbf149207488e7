"""Guest output on its way to the host: a bounded buffer and a thread that writes.

A vCPU thread must never wait inside a device request, and the main thread must never wait for a terminal or
a full pipe. So the thread that received the output appends it to a stream, and the writer thread of the
stream makes the blocking calls of `write`. The writer collects output for `GATHER_SECONDS` first. A wake-up
for each byte would make the exits of a printing guest several times slower, and a spinning device process
would lose its CPU to the writer each time.

A stream with `CAPACITY` bytes is congested. With overflow "wait", a vCPU thread then waits in
`wait_for_room`, without a lock, while timers, signals and time-outs continue. With "drop", output that does
not fit is counted and dropped. One reply adds at most one frame. Each vCPU that waits has added one reply, or
the replies to the writes in KVM's ring (`run.vcpu.coalesced_ring`). So a guest exceeds the capacity by
little. Twice the capacity can only come from a device process that invents output.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from kvmbox.host.process.threads import start_thread

CAPACITY: Final = 1 << 20
"""How many bytes a stream holds back before it is congested."""

WRITE_SIZE: Final = 1 << 16
GATHER_SIZE: Final = 4096
GATHER_SECONDS: Final = 0.008
"""How long output is collected before it is written. A user does not notice this delay."""


class OutputStream:
    """Bytes for one descriptor. `append` from any thread; the descriptor is the caller's to close."""

    def __init__(
        self,
        name: str,
        descriptor: int,
        *,
        overflow: str = "wait",
        limit: int | None = None,
        drop_without_reader: bool = False,
        failed: Callable[[OSError], None],
        limit_reached: Callable[[], None] | None = None,
        overflowed: Callable[[], None] | None = None,
        tight: Callable[[], None] | None = None,
    ) -> None:
        """`overflow` is "wait" or "drop"; `limit` is the most bytes to write in all, or None.

        `drop_without_reader` is for pseudo-terminals, which hang up while nobody has them open.
        `failed` hears, once, on the writer thread, why the host cannot take any more; `limit_reached`
        hears, on the appending thread, that `limit` is used up; `overflowed` that twice the capacity is
        held back, which no guest that waits for room can cause; `tight`, under the lock, that the stream is
        congested.
        """
        self.name = name
        self.appended = 0
        self.dropped = 0
        self.error: OSError | None = None
        """Why the host takes no more, once it does not."""
        self._descriptor = descriptor
        self._drop = overflow == "drop"
        self._limit = limit
        self._drop_without_reader = drop_without_reader
        self._failed = failed
        self._limit_reached = limit_reached
        self._overflowed = overflowed
        self._tight = tight
        self._buffer = bytearray()
        self._writing = 0
        self._broken = False
        self._lost = 0  # of what was dropped: what a broken descriptor did not take
        self._closing = False
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the writer's thread: the first output would, but the VMM's threads start in an order of its
        own (`sandbox.vmm`). Idempotent. Raises KvmboxError if the host has no room for a thread.
        """
        with self._lock:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            thread = threading.Thread(target=self._write_all, name=f"output {self.name}", daemon=True)
            start_thread(thread.start, f"the thread that writes the output of {self.name}")
            self._thread = thread

    @property
    def congested(self) -> bool:
        """Whether the guest should wait. Never with overflow "drop"."""
        return not self._drop and len(self._buffer) >= CAPACITY and not self._broken

    def append(self, data: bytes) -> None:
        """Append output of the guest. Never waits for the host."""
        with self._lock:
            # The common case, at each character that a guest prints: there is room, and someone who writes.
            before = len(self._buffer)
            after = before + len(data)
            if after < CAPACITY and self._limit is None and self._thread is not None and not self._broken:
                self._buffer += data
                self.appended += len(data)
                if not before or before < GATHER_SIZE <= after:
                    self._changed.notify_all()
                return
        self._append_with_care(data)

    def _append_with_care(self, data: bytes) -> None:
        """The same where something may be in the way."""
        reached = overflowed = False
        with self._lock:
            if self._limit is not None and self.appended + len(data) > self._limit:
                data = data[: self._limit - self.appended]
                reached = True
            self.appended += len(data)
            if self._broken or (self._drop and len(self._buffer) + len(data) > CAPACITY):
                self.dropped += len(data)
                self._lost += len(data) if self._broken else 0
            elif len(self._buffer) + len(data) > 2 * CAPACITY:
                self.dropped += len(data)
                self._lost += len(data)
                overflowed = True
            elif data:
                before = len(self._buffer)
                self._start()
                self._buffer += data
                if not before or before < GATHER_SIZE <= len(self._buffer):
                    self._changed.notify_all()
                if self.congested and self._tight is not None:
                    self._tight()
        if reached and self._limit_reached is not None:
            self._limit_reached()
        if overflowed and self._overflowed is not None:
            self._overflowed()

    @property
    def stuck(self) -> bool:
        """Whether the writer thread is in a write that has not returned."""
        return self._writing > 0

    def wait_for_room(self, wanted: Callable[[], bool]) -> None:
        """Wait until the stream is no longer congested, or `wanted()` turns false; see `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: not self.congested or not wanted())

    def wake(self) -> None:
        """Let `wait_for_room` look again."""
        with self._changed:
            self._changed.notify_all()

    def flush(self, seconds: float) -> int:
        """Wait until all is written, `seconds` at most; returns how many bytes are not, lost ones too."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._broken or not self._unwritten(), timeout=seconds)
            left = self._unwritten() + self._lost
        if not left and self._thread is not None and self._thread is not threading.current_thread():
            # The thread has nothing left to do. A program that goes on, or ends, must not meet it any more.
            self._thread.join(seconds)
        return left

    def _unwritten(self) -> int:
        return len(self._buffer) + self._writing

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._buffer) or self._closing)
                if not self._closing and len(self._buffer) < GATHER_SIZE:
                    self._changed.wait(GATHER_SECONDS)
                if not self._buffer and self._closing:
                    return
                chunk = bytes(self._buffer[:WRITE_SIZE])
                del self._buffer[:WRITE_SIZE]
                self._writing = len(chunk)
                self._changed.notify_all()  # there is room now: the write may take long
            try:
                self._write_chunk(chunk)
            except OSError as error:
                with self._changed:
                    self._broken = True
                    self.error = error
                    self._lost = self._unwritten()
                    self.dropped += self._lost
                    self._buffer.clear()
                    self._writing = 0
                    self._changed.notify_all()
                self._failed(error)
                return
            with self._changed:
                self._writing = 0
                self._changed.notify_all()

    def _write_chunk(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            if self._drop_without_reader and self._hung_up():
                self.dropped += len(view)
                return
            try:
                written = os.write(self._descriptor, view)
            except BlockingIOError:
                # Somebody made the descriptor non-blocking (a pseudo-terminal is): wait for room.
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(1000)
                continue
            except OSError as error:
                if self._drop_without_reader and error.errno == errno.EIO:
                    self.dropped += len(view)
                    return
                raise
            view = view[written:]
            self._writing = len(view)

    def _hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, 0)
        return bool(poll.poll(0))
