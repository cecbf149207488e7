"""Writes a recording while the machine runs: threads that receive replies queue records, and one thread
writes.

Recording should slow the guest as little as possible, and a slow disk must not stop the guest. So the
recorder of a channel, which is called under the lock of the channel, only appends to a queue. The writer
thread collects records for `GATHER_SECONDS`, compresses them (zlib lets other threads run meanwhile) and
writes. After each write the stream is at a byte boundary, so that everything written can be read if kvmbox is
killed. Only the records that were not yet written are lost.

The queue is bounded. If the queue is full because the disk is slow, the thread that adds a record waits for
`WAIT_SECONDS` at most. So the guest is slowed to the speed of the disk, and the lock of the channel is held
for less time than other threads wait for it.

A recording can end early in two ways. At --record-limit it gets its end mark, and the run continues. If the
file cannot be written, the file is a truncated recording, and `finish` returns the reason.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from kvmbox.base.errors import KvmboxError, StartError, UsageError
from kvmbox.contract.device_spec import DeviceSpec
from kvmbox.host.console.serial_backends import open_for_writing, reason
from kvmbox.host.files.replacement_file import PRIVATE
from kvmbox.host.process.threads import start_thread
from kvmbox.parts.record import format as fmt
from kvmbox.parts.record.format import End, EndReason

GATHER_SECONDS: Final = 0.02
CAPACITY: Final = 16384
"""How many records may wait to be written: 1.2 MB of accesses, 135 MB if each were as large as can be."""

BATCH: Final = 4096
"""How many records are compressed and written at once."""

WAIT_SECONDS: Final = 0.1
FINISH_SECONDS: Final = 5.0
"""How long the end of a run may wait for the disk."""

COMPRESSION: Final = 1
"""The fastest: frames are so alike that a higher level saves little more."""

_END_SPACE: Final = 64
"""Bytes kept free for the end mark and the end of the stream, below --record-limit."""


class Recorder:
    """A recording that is being written. Created and finished by the main thread."""

    def __init__(
        self,
        path: str,
        board: Sequence[DeviceSpec],
        *,
        per_device: bool = False,
        inject: Sequence[str] = (),
        limit: int | None = None,
        start: bool = True,
        say: Callable[[str], None] = lambda text: None,
        write: Callable[[int, memoryview], int] = os.write,
    ) -> None:
        """Create or empty `path`, and write the header. `per_device` is how the board falls into processes.
        `inject` are the faults between the devices and the guest, as --inject had them. `limit` is the most
        bytes that the file may have.

        Without `start` nothing is written behind the header before `start()`. `say` hears, once, if the
        recording ends before the run. Raises StartError where the file cannot be written, and UsageError for
        a limit that is too small for anything.
        """
        self.path = path
        self.ended = False
        """Whether nothing more is recorded."""
        self.problem: str | None = None
        """Why the file lacks what it should hold, or None."""
        self._limit = limit
        self._say = say
        self._write = write
        channels = fmt.channels_of(board, per_device=per_device)
        self._indices = {channel.device_type: index for index, channel in enumerate(channels)}
        self._compressor = zlib.compressobj(COMPRESSION)
        self._written = 0
        self._count = 0
        self._queue: deque[bytes] = deque()
        self._idle = True
        self._closing = False
        self._wanted = threading.Event()
        self._room = threading.Event()
        header = fmt.encode_header(channels, inject)
        if limit is not None and limit < len(header) + _END_SPACE:
            raise UsageError(
                f"--record-limit {limit} leaves no room for a record",
                hint=f"the description of this machine alone takes {len(header)} bytes",
            )
        try:
            # Private: it has what was typed, and the guest memory that devices were sent.
            self._descriptor = open_for_writing(path, PRIVATE)
        except OSError as error:
            raise StartError(f"cannot write the recording '{path}': {reason(error)}") from error
        try:
            self._write_all(header)
        except OSError as error:
            os.close(self._descriptor)
            raise StartError(f"cannot write the recording '{path}': {error.strerror}") from error
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        if start:
            self.start()

    def start(self) -> None:
        """Start the thread that writes; until then records are queued. Idempotent. Raises KvmboxError if the
        host has no room for a thread.
        """
        if self._thread.ident is None:
            start_thread(self._thread.start, "the thread that writes the recording")

    def of(self, device_type: str) -> Callable[[bytes, bytes], None]:
        """What a channel calls with each request and its reply, under its lock."""
        index = self._indices[device_type]
        append, queue, pack = self._queue.append, self._queue, fmt.RECORD.pack

        def record(request: bytes, reply: bytes) -> None:
            if self.ended:
                return
            append(pack(index, fmt.EXCHANGE, len(request), len(reply)) + request + reply)
            if self._idle:
                self._idle = False
                self._wanted.set()
            elif len(queue) > CAPACITY:
                self._room.clear()
                self._room.wait(WAIT_SECONDS)

        return record

    def finish(self) -> str | None:
        """Write the rest and the end mark, for `FINISH_SECONDS` at most; returns `problem`. Idempotent."""
        self._closing = True
        self._wanted.set()
        try:
            self.start()
        except KvmboxError:
            if not self.ended:
                self._run()
        else:
            self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            self.ended = True
            self.problem = f"the recording '{self.path}' is not whole: the disk does not take it"
        elif self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        return self.problem

    # --- The writer thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._gather():
                pass
            if not self.ended:
                self._end(EndReason.COMPLETE)
        except OSError as error:
            self.problem = f"the recording '{self.path}' is not whole: {error.strerror}"
            self._report(f"recording to '{self.path}' ended, the run goes on: {error.strerror}")
        finally:
            self.ended = True
            self._queue.clear()
            self._room.set()

    def _gather(self) -> bool:
        """Wait for records and write them; returns whether there may be more."""
        closing = self._closing
        if not self._queue and not closing:
            # In this order: a record queued after the look is one whose recorder sees `_idle` and wakes us.
            self._wanted.clear()
            self._idle = True
            if not self._queue and not self._closing:
                self._wanted.wait()
            self._idle = False
            self._wanted.clear()
            if not self._closing:
                self._wanted.wait(GATHER_SECONDS)
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
            if not self._write_batch(batch):
                self._end(EndReason.LIMIT)
                self.ended = True
                self._report(f"recording to '{self.path}' stopped at --record-limit, the run goes on")
                return False
            self._room.set()
        return not closing

    def _report(self, text: str) -> None:
        # A stderr that is gone is no reason to lose the recording.
        with suppress(OSError):
            self._say(text)

    def _write_batch(self, batch: list[bytes]) -> bool:
        """Write `batch`, or as much of it as the limit has room for; returns whether that was all."""
        if self._limit is None:
            self._write_all(self._deflate(batch))
            self._count += len(batch)
            return True
        # How large compressed data gets is known when it is too late: then go back, and try half of it.
        before = self._compressor.copy()
        data = self._deflate(batch)
        if self._written + len(data) + _END_SPACE <= self._limit:
            self._write_all(data)
            self._count += len(batch)
            return True
        self._compressor = before
        if len(batch) > 1:
            half = len(batch) // 2
            return self._write_batch(batch[:half]) and self._write_batch(batch[half:])
        return False

    def _deflate(self, batch: list[bytes]) -> bytes:
        data = self._compressor.compress(b"".join(batch))
        return data + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def _end(self, reason: EndReason) -> None:
        mark = fmt.encode_end(End(reason, self._count))
        self._write_all(self._compressor.compress(mark) + self._compressor.flush(zlib.Z_FINISH))

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = self._write(self._descriptor, view)
            self._written += written
            view = view[written:]
