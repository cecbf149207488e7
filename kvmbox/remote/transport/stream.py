"""The transports over descriptors: a SOCK_SEQPACKET socket, or two pipes in packet mode.

Both keep the boundaries of frames: one write sends one frame, and one read returns one frame. The cost is two
system calls and the switch to the device process and back. The switch is almost the whole cost.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Final

from kvmbox.jail import descriptor_passing
from kvmbox.jail.fixed_descriptors import CHANNEL_FD, REPLY_FD
from kvmbox.remote.process.spin_permits import SpinPermits
from kvmbox.remote.transport.interface import (
    NO_HEADER,
    EndedError,
    Link,
    LinkedTransport,
    MisusedError,
    OverdueError,
    Waits,
    Words,
)
from kvmbox.wire.protocol import HEADER, MAX_FRAME, WORDS

_pack: Final = WORDS.pack
_unpack: Final = WORDS.unpack
_HEADER_SIZE: Final = HEADER.size
_READ_SIZE: Final = MAX_FRAME + 1  # one more than a frame may have, so that a longer one shows


class StreamTransport(LinkedTransport):
    """Frames through descriptors; both kinds of them have this in common."""

    def __init__(
        self,
        link: Link,
        device_type: str,
        waits: Waits,
        *,
        read: Callable[[int, int], bytes] = os.read,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        del device_type
        self.requests, self.replies = link.vmm[0], link.vmm[-1]
        self._waits = waits
        self._read = read
        self._write = write
        self._frame = b""  # the last reply to `exchange_words`

    def exchange_words(self, first: int, now: int, value: int, offset_and_length: int) -> Words:
        """See Transport."""
        try:
            self._write(self.requests, _pack(first, now, value, offset_and_length))
            frame = self._read(self.replies, _READ_SIZE)
        except OSError as error:
            frame = self._last_words(error)
        return self._words_of(frame)

    def _words_of(self, frame: bytes) -> Words:
        self._frame = frame
        if len(frame) == _HEADER_SIZE:
            return _unpack(frame)
        if not frame:
            raise self._nothing()
        if len(frame) > _HEADER_SIZE:
            words: Words = WORDS.unpack_from(frame)
            if words[3] >> 32:
                return words
        return NO_HEADER

    def payload(self, words: Words) -> bytes:
        """See Transport."""
        return self._frame if words is NO_HEADER else self._frame[_HEADER_SIZE:]

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport."""
        try:
            if slices is None:
                self._write(self.requests, sent)
            else:
                self._send_now(sent)
                if not self._wait_readable(slices):
                    raise OverdueError(slices)
            frame = self._read(self.replies, _READ_SIZE)
        except OSError as error:
            frame = self._last_words(error)
        if not frame:
            raise self._nothing()
        return frame

    def _send_now(self, frame: bytes) -> None:
        # Never waits for room: the main thread is the watchdog, and nobody watches it. A process that has
        # answered every request has read every request, so there is room unless it lies.
        try:
            self._send_if_there_is_room(frame)
        except BlockingIOError:
            raise MisusedError("it answers requests that it has not read") from None

    def _send_if_there_is_room(self, frame: bytes) -> None:
        """Write at once, or raise BlockingIOError."""
        raise NotImplementedError

    def _nothing(self) -> EndedError | MisusedError:
        """Why a read gave nothing."""
        return EndedError("its channel ended")

    def _wait_readable(self, slices: int) -> bool:
        poll = select.poll()
        poll.register(self.replies, select.POLLIN)
        return self._waits(poll, slices)

    def _last_words(self, error: OSError) -> bytes:
        """The frame that the process left behind when it died with a request unread. Raises EndedError.

        The kernel reports the reset before it hands out what was queued; a process that failed says why.
        """
        try:
            # A pipe for replies may be open still, though nobody reads the one for requests.
            return self._read(self.replies, _READ_SIZE) if self._wait_readable(1) else b""
        except OSError:
            raise EndedError(error.strerror) from error

    def close(self) -> None:
        """See Transport."""
        for descriptor in {self.requests, self.replies}:
            if descriptor >= 0:
                os.close(descriptor)
        self.requests = self.replies = -1


class SocketTransport(StreamTransport):
    """One socket for both ways."""

    uses_pipes = False
    device_holds = f"a socket, descriptor {CHANNEL_FD}"

    @classmethod
    def connect(cls, made: list[int], spin: SpinPermits | None) -> Link:
        """See LinkedTransport."""
        made += descriptor_passing.socket_pair()
        return Link(cls, (made[0],), (made[1],))

    def _send_if_there_is_room(self, frame: bytes) -> None:
        descriptor_passing.send(self.requests, frame, wait=False)

    def _nothing(self) -> EndedError | MisusedError:
        # A packet of no bytes reads like the end, but only the end hangs up.
        return (
            super()._nothing()
            if descriptor_passing.hung_up(self.requests)
            else MisusedError("an empty frame")
        )


class PipeTransport(StreamTransport):
    """One pipe for requests and one for replies."""

    device_holds = f"two pipes: requests from descriptor {CHANNEL_FD}, replies to {REPLY_FD}"

    @classmethod
    def connect(cls, made: list[int], spin: SpinPermits | None) -> Link:
        """See LinkedTransport."""
        made += os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        made += os.pipe2(os.O_CLOEXEC | os.O_DIRECT)
        return Link(cls, (made[1], made[2]), (made[0], made[3]))

    def _send_if_there_is_room(self, frame: bytes) -> None:
        poll = select.poll()
        poll.register(self.requests, select.POLLOUT)
        if not any(mask & select.POLLOUT for _, mask in poll.poll(0)):
            raise BlockingIOError
        self._write(self.requests, frame)
