"""Bulk data between resources of the host and guest memory, which no device process touches.

A `Transfer` effect of a device becomes an `Order`. `perform` executes an order. A fault of the host or of the
guest never raises, but gives a status. A store that is a program's own may raise something else than OSError.
`perform` does not catch that.

`TransferThread` executes orders in sequence on a separate thread, because reading a file may block. There an
order that raises has failed, and `problem` keeps the reason. The thread passes finished orders to the main
thread, which informs the device. If time stands still (qtest), `perform` is called directly.

An order moves all bytes or none, with one exception: a write that fails, or for which the disk of the host
has no room, may have written some bytes.

What touches no guest memory is an `Errand` on the same thread: a disk that has to be waited for.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from kvmbox.base.errors import DeviceProcessError
from kvmbox.base.memory import GuestMemory
from kvmbox.base.value_classes import Value
from kvmbox.contract.model import BAD_ADDRESS, BEYOND_END, DONE, FAILED, NO_SPACE
from kvmbox.host.process.threads import start_thread

QUIET_SECONDS: Final = 5.0
"""How long `quiesce` waits for the transfer that is under way."""


class Store(Protocol):
    """A resource of the host: bytes that can be read and, where the grant says so, written."""

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, or less where it ends. Raises OSError."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Store bytes from `offset`. Raises OSError."""
        ...


class BytesStore:
    """A resource in the VMM's memory."""

    def __init__(self, data: bytes | bytearray) -> None:
        """A bytearray is changed in place; bytes are copied."""
        self.data = data if isinstance(data, bytearray) else bytearray(data)

    def read(self, offset: int, size: int) -> bytes:
        """See Store."""
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        """See Store. What would make it longer is NO_SPACE."""
        if offset + len(data) > len(self.data):
            raise OSError(errno.ENOSPC, "the resource has no more bytes")
        self.data[offset : offset + len(data)] = data

    # As a medium: see `remote.published.medium.MediumStore`.
    writes_now = True
    read_now = read

    def flush(self) -> None:
        """There is no stabler storage."""


class FileStore:
    """An open file. Its descriptor is used by one thread at a time, and is the caller's to close."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self, offset: int, size: int) -> bytes:
        """See Store."""
        # Not pread, which a confined VMM may not call: nobody else moves this offset.
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        parts = []
        while size and (part := os.read(self.descriptor, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """See Store."""
        os.lseek(self.descriptor, offset, os.SEEK_SET)
        left = memoryview(data)
        while left:
            left = left[os.write(self.descriptor, left) :]


class Order(Value):
    """One transfer: `device` is the name of who asked, `size` how many bytes the resource has."""

    device: str
    tag: int
    store: Store
    size: int
    offset: int
    ranges: Sequence[tuple[int, int]]
    to_guest: bool


Settle = Callable[[int], bool | Sequence[Any]]
"""Is told the status of what is done, under the lock of the device's channel: whether the device still waits
for it; or, instead of that, all that follows for the channel (`remote.channel.effect_calls`)."""


class Errand(Value):
    """Something to do that may wait: `work` does it, and returns the status. See `Settle`."""

    device: str
    tag: int
    work: Callable[[], int]
    settle: Settle | None = None


class Done(NamedTuple):
    """An order or an errand that was done, and with which status."""

    device: str
    tag: int
    status: int
    settle: Settle | None = None


def status_of(error: OSError) -> int:
    """What a device is told of an error of the host's."""
    return NO_SPACE if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else FAILED


def perform(order: Order, ram: GuestMemory) -> int:
    """Move the bytes; returns the status. Raises what a store raises besides OSError."""
    length = sum(size for _, size in order.ranges)
    if not ram.has(order.ranges):
        return BAD_ADDRESS
    if order.offset + length > order.size:
        return BEYOND_END
    try:
        if not order.to_guest:
            order.store.write(order.offset, ram.gather(order.ranges))
            return DONE
        data = order.store.read(order.offset, length)
    except OSError as error:
        return status_of(error)
    if len(data) < length:
        return BEYOND_END  # the file has become shorter than the board says
    position = 0
    for address, size in order.ranges:
        if size:
            ram.write(address, data[position : position + size])
            position += size
    return DONE


class TransferThread:
    """Does orders one after the other. `submit` on any thread, everything else on the main thread."""

    def __init__(self, ram: GuestMemory, wake: Callable[[], None]) -> None:
        """`wake` makes the main thread call `take_done`. The thread starts with the first order."""
        self._ram = ram
        self._wake = wake
        self._changed = threading.Condition()
        self._waiting: deque[Order | Errand] = deque()
        self._done: deque[Done] = deque()
        self._pending: dict[str, int] = {}
        self._working = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self.problem: str | None = None
        """What a store raised besides OSError, the first time: one line."""

    def submit(self, order: Order | Errand, limit: int) -> bool:
        """Take it, if fewer than `limit` of its device are pending: not told of yet."""
        with self._changed:
            pending = self._pending.get(order.device, 0)
            if pending >= limit:
                return False
            self._pending[order.device] = pending + 1
            self._waiting.append(order)
            self._changed.notify_all()
        return True

    def start(self) -> None:
        """Start the thread: after the VMM has confined itself, since threads inherit that. Raises KvmboxError
        if the host has no room for a thread.
        """
        thread = threading.Thread(target=self._work, name="transfers", daemon=True)
        start_thread(thread.start, "the thread that transfers data of devices")
        self._thread = thread

    def _work(self) -> None:
        while True:
            with self._changed:
                self._working = False
                self._changed.notify_all()
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                order = self._waiting.popleft()
                self._working = True
            try:
                status = order.work() if isinstance(order, Errand) else perform(order, self._ram)
            except DeviceProcessError:
                status = FAILED  # the process that a store asked is lost: that ends the run, or is told of
            except Exception as error:  # noqa: BLE001 - a store may be a program's: no order may end the thread
                status = FAILED
                self.problem = self.problem or f"a transfer of device '{order.device}' failed: {error!r}"
            with self._changed:
                if self._closed:
                    continue  # left behind by `close`: nobody is to be woken any more
                settle = order.settle if isinstance(order, Errand) else None
                self._done.append(Done(order.device, order.tag, status, settle))
            self._wake()

    def take_done(self) -> list[Done]:
        """What was done since the last call."""
        if not self._done:
            return []
        with self._changed:
            done = list(self._done)
            self._done.clear()
            for one in done:
                self._pending[one.device] -= 1
        return done

    def settle(self) -> bool:
        """Let all end that waits or is under way. False if it does not end."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._working and not self._waiting, timeout=QUIET_SECONDS
            )

    def settle_all(self, complete: Callable[[], bool]) -> bool:
        """Settle, and have `complete` report to the devices, until nothing is left. False if it does not end:
        devices may ask for more when they hear of something.
        """
        give_up = time.monotonic() + QUIET_SECONDS
        while self.settle():
            if not complete():
                return True
            if time.monotonic() > give_up:
                break
        return False

    def quiesce(self) -> bool:
        """The machine is reset: drop what waits, and let what is under way end. False if it does not end."""
        with self._changed:
            self._waiting.clear()
            ended = self._changed.wait_for(lambda: not self._working, timeout=QUIET_SECONDS)
            self._done.clear()
            self._pending.clear()
        return ended

    def close(self) -> bool:
        """End the thread. False if a transfer does not end: it is left behind. Idempotent."""
        ended = self.quiesce()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None and ended:
            self._thread.join()
            self._thread = None
        return ended
