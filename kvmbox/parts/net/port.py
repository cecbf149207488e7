"""The port of one interface: between its device, which it is a medium of, and its wire.

Sent frames. `write` is called by the vCPU thread, under the lock of the device's channel. The wire takes the
frame at once, or it waits here, and the main thread sends it when the host has room. `MOST_WAITING` frames
may wait: a guest that sends more than the host takes loses them, and they are counted.

Received frames. The main thread reads them when the device has room, and puts them into chains of the guest's
at once, if a queue is connected to this port (`remote.published.queue_packets`). Any other device is offered
their lengths: RECEIVE. It takes them from the first one on, and the VMM copies them to where it says:
`read_now`, while RECEIVE is under way. While there is no room, nothing is read: the wire holds back whoever
sends, or loses.

A peer that takes nothing any more may have sent something before: reading goes on until its end.

The lock is held for as long as it takes to move one frame, or one packet of them.
"""

from __future__ import annotations

import errno
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from kvmbox.devices.virtio.net import LEAST_FRAME, MOST_FRAME
from kvmbox.parts.net.wires import CutError, Wire
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.wire import protocol

if TYPE_CHECKING:
    from kvmbox.parts.net.pcap import Capture
    from kvmbox.remote.channel.connection import Channel
    from kvmbox.remote.published.queues import DeviceQueues

MOST_WAITING: Final = 256
"""How many frames may wait for the wire, and how many for the device."""
MOST_OFFERED: Final = 16
"""How many frames one RECEIVE offers."""
MOST_ROUNDS: Final = 8
"""How many times in a row the device is offered some."""
LENGTH: Final = Struct("<H")
"""Of a frame that is offered by RECEIVE."""
PLACE_SHIFT: Final = 16
"""Where a frame that is offered is in the medium: its number times 65536, and then its bytes."""
_PLACE: Final = (1 << PLACE_SHIFT) - 1


class Port:
    """See the module: a `remote.published.medium.MediumStore`. What is no method of that belongs to the main
    thread.
    """

    writes_now = True
    offer_size = LENGTH.size
    longest = MOST_FRAME
    """Of a received frame: what is longer is lost."""

    def __init__(self, name: str, wire: Wire | None = None, capture: Capture | None = None) -> None:
        self.name = name
        self.wire = wire or Wire()
        self.capture = capture
        self.counts = dict.fromkeys(
            ("sent", "sent_bytes", "received", "received_bytes", "waited", "lost_sent", "lost_received"), 0
        )
        """Frames and bytes; `waited`: how often the host had no room for a frame."""
        self.has_room = False
        """Whether the device may take more frames: not before it has said so."""
        self.cut: str | None = None
        """Why nobody at the other end takes frames any more."""
        self._ended = False  # and nothing comes from there
        self.now: Callable[[], int] = lambda: 0
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._outgoing: deque[bytes] = deque()
        self.incoming: deque[bytes] = deque()
        self._taken: set[int] = set()

    # --- The device's -------------------------------------------------------------------------------------

    def write(self, _offset: int, data: bytes) -> None:
        """The guest sends a frame. Never raises: what the host does not take is lost."""
        if len(data) < LEAST_FRAME:
            return
        with self._lock:
            self._count("sent", data)
            if self.cut is not None:
                self.counts["lost_sent"] += 1
            elif self._outgoing or not self._sends(data):
                self.counts["waited"] += 1
                self._hold(data)
        if self._outgoing:
            self.wake()

    def read_now(self, offset: int, size: int) -> bytes:
        """A part of a frame that is offered. OSError if there is none."""
        number = offset >> PLACE_SHIFT
        if number >= min(len(self.incoming), MOST_OFFERED):
            raise OSError(errno.EINVAL, "no such frame")
        place, part = offset & _PLACE, b""
        with suppress(IndexError):  # a hostile device reads while `_has_accepted` takes the frame away
            part = self.part(self.incoming[number], place, size)
        if len(part) < size:
            raise OSError(errno.EINVAL, "a frame is shorter")
        self._taken.add(number)
        return part

    read = read_now

    def flush(self) -> None:
        """See MediumStore: a wire has no stable storage."""

    def room(self, _count: int) -> None:
        """The device takes frames again."""
        self.has_room = True
        self.wake()

    def has_buffers(self) -> None:
        """The guest has chains for frames, in the queue that is connected to this port."""
        if not self.has_room:
            self.room(0)

    # --- The main thread's --------------------------------------------------------------------------------

    @property
    def events(self) -> int:
        """What to poll the descriptor of the wire for."""
        writes = self.cut is None and bool(self._outgoing or self.wire.unsent)
        return select.POLLIN * self._reads | select.POLLOUT * writes

    @property
    def due(self) -> int | None:
        """When to `move` even if nothing happens, in ns of the host's monotonic clock, or None."""
        times = (
            self.wire.leaves_at if self.cut is None else None,
            self.wire.comes_at if self._reads else None,
        )
        return min((at for at in times if at is not None), default=None)

    @property
    def _reads(self) -> bool:
        return self.has_room and not self._ended and len(self.incoming) < MOST_WAITING

    def move(self) -> None:
        """Send what waits for the wire, and read what has come, as far as there is room."""
        with self._lock:
            try:
                while self._outgoing and self._tries(self._outgoing[0]):
                    self._outgoing.popleft()
                self._flush()
            except CutError as error:
                self._is_cut(error)
            if self._reads:
                try:
                    self._take_in(self.wire.receive())
                except CutError as error:
                    self._is_cut(error)
                    self._ended = True

    def feed(self, channel: Channel, device: int) -> None:
        """Give the guest what has come, or offer it to the device. Raises DeviceProcessError."""
        for _ in range(MOST_ROUNDS):
            if not (self.has_room and self.incoming):
                return
            media, connected = channel.media(device), list[bool]()
            queues = None if media is None else media.queues
            channel.serve(partial(self._fill, queues, connected), REPLY_SLICES)
            if connected:
                return
            offered = [self.incoming[number] for number in range(min(len(self.incoming), MOST_OFFERED))]
            self._taken.clear()
            payload = b"".join([self.offer(frame) for frame in offered])
            accepted, _ = channel.request(
                protocol.RECEIVE, device=device, payload=payload, limit=len(payload)
            )
            self._has_accepted(accepted // self.offer_size, len(offered))
        if self.incoming:
            self.wake()

    def part(self, frame: bytes, place: int, size: int) -> bytes:
        """The bytes [place, place + size) of a frame that is offered, as far as there are some."""
        return frame[place : place + size]

    def offer(self, frame: bytes) -> bytes:
        """What the device is told of a frame: `offer_size` bytes."""
        return LENGTH.pack(len(frame))

    def _fill(self, queues: DeviceQueues | None, connected: list[bool]) -> Sequence[Any]:
        """Fill the guest's chains, if a queue is connected, and say so; what is to be sent because of it.

        Under the lock of the channel: a queue may be connected, and have chains again, at any other moment.
        """
        if queues is None or not queues.is_connected(self):
            self.has_room = False  # before the device is asked: it may say otherwise in its reply
            return ()
        connected.append(True)
        while self.incoming:
            chains = queues.put(self, self.incoming[0])
            if chains is None:
                self.has_room = False
                break
            frame = self.incoming.popleft()
            with self._lock:
                if chains:
                    self._count("received", frame)
                else:
                    self.counts["lost_received"] += 1
        return [queues.next_request]

    def _has_accepted(self, count: int, offered: int) -> None:
        with self._lock:
            for number in range(count):
                frame = self.incoming.popleft()
                if number in self._taken:
                    self._count("received", frame)
                else:
                    self.counts["lost_received"] += 1
            if count == offered:
                self.has_room = True

    def facts(self) -> dict[str, Any]:
        """What is told of it."""
        counts = dict(self.counts)
        counts["lost_received"] += self.wire.lost
        return {"name": self.name, "cut": self.cut} | counts

    def close(self) -> None:
        """Idempotent."""
        self.wire.close()
        if self.capture is not None:
            self.capture.close()

    # --- Under the lock -----------------------------------------------------------------------------------

    def _count(self, what: str, frame: bytes) -> None:
        self.counts[what] += 1
        self.counts[f"{what}_bytes"] += len(frame)
        if self.capture is not None:
            self.capture.add(self.now(), frame)

    def _is_cut(self, error: CutError) -> None:
        if self.cut is None:
            self.cut = str(error)
        self.counts["lost_sent"] += len(self._outgoing)
        self._outgoing.clear()

    def _sends(self, frame: bytes) -> bool:
        """Whether the wire has taken a frame, or lost it; with nobody at its other end, the second."""
        try:
            return self._tries(frame)
        except CutError as error:
            self._is_cut(error)
            self.counts["lost_sent"] += 1
            self.wake()
            return True

    def _tries(self, frame: bytes) -> bool:
        try:
            return self.wire.send(frame)
        except OSError:
            self.counts["lost_sent"] += 1
            return True

    def _flush(self) -> None:
        try:
            self.wire.flush()
        except OSError:
            self.counts["lost_sent"] += 1

    def _hold(self, frame: bytes) -> None:
        if len(self._outgoing) < MOST_WAITING:
            self._outgoing.append(frame)
        else:
            self.counts["lost_sent"] += 1

    def _take_in(self, frames: list[bytes]) -> None:
        for frame in frames:
            if LEAST_FRAME <= len(frame) <= self.longest:
                self.incoming.append(frame)
            else:
                self.counts["lost_received"] += 1
