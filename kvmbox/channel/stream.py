"""The channel over descriptors: a SOCK_SEQPACKET socket, or two pipes in packet mode.

Either keeps the boundaries of frames: one write is one frame, one read gives one frame.

Where the time goes in `access`: an uncontended lock, two system calls, and between them the switch to the
device process and back, which is nearly all of it; the rest is one pack, one unpack and two comparisons. A
reply without effects is one compare against the request's own first eight bytes, so a wrong sequence
number, kind, device or size is caught by the same instruction that lets a good reply pass.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from typing import Final

from kvmbox.channel.channel import JOURNAL_LIMIT, Channel, Grants, hung_error
from kvmbox.errors import DeviceProcessError
from kvmbox.sandbox import passing
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, MAX_FRAME, WORDS

_pack: Final = WORDS.pack
_unpack: Final = WORDS.unpack
_write: Final = os.write
_read: Final = os.read
_HEADER_SIZE: Final = HEADER.size
_REPLY_BIT: Final = protocol.REPLY
_READ_SIZE: Final = MAX_FRAME + 1  # one more than a frame may have, so that a longer one shows


class StreamChannel(Channel):
    """A `Channel` whose frames go through descriptors."""

    def __init__(
        self,
        device_type: str,
        descriptor: int,
        grants: Sequence[Grants],
        *,
        now: Callable[[], int],
        deadline_changed: Callable[[int, int], None] | None = None,
        reply_descriptor: int | None = None,
    ) -> None:
        """`descriptor` is the VMM's end of a socket; or of the pipe for requests, where `reply_descriptor`
        is the end of the pipe for replies.
        """
        super().__init__(device_type, grants, now=now, deadline_changed=deadline_changed)
        self.descriptor = self.reply_descriptor = -1
        self.adopt(descriptor, reply_descriptor)
        self._acquire = self._lock.acquire
        self._release = self._lock.release

    def adopt(self, descriptor: int, reply_descriptor: int | None = None) -> None:
        """From now on talk to another process. The caller holds the lock, or is alone."""
        self.close()
        self.descriptor = descriptor
        self.reply_descriptor = descriptor if reply_descriptor is None else reply_descriptor
        self.is_socket = reply_descriptor is None

    def access(self, word: int, offset: int, value: int, limit: int) -> int:
        """See Channel."""
        self._acquire()
        try:
            if self._failure is not None:
                raise self._failure
            sequence = self._sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
            first = word | sequence << 32
            now = self._now()
            sent = _pack(first, now, value, offset)
            self.waiting = sequence
            try:
                try:
                    _write(self.descriptor, sent)
                    frame = _read(self.reply_descriptor, _READ_SIZE)
                except OSError as error:
                    frame = self._last_words(error)
                if len(frame) == _HEADER_SIZE and self.recorder is None:
                    reply, deadline, result, rest = _unpack(frame)
                    if reply == first | _REPLY_BIT and result <= limit and not rest:
                        if deadline != self.deadline:
                            self._set_deadline(deadline, now)
                        journal = self.journal
                        if journal is not None:
                            journal.append((sent, frame))
                            if len(journal) >= JOURNAL_LIMIT:
                                self.journal_is_full()
                        return result  # type: ignore[no-any-return]  # struct's words are ints
                if not frame:
                    raise self._nothing(sent)
                result = self._finish(sent, frame, limit)
            except DeviceProcessError as error:
                result = self._survive(error, sent, limit)[0]
            finally:
                self.waiting = 0
            if self._follow_ups:
                self._follow_up(None)
        finally:
            self._release()
        if self.settle is not None:
            self.settle()
        return result

    def _exchange(self, sent: bytes, slices: int | None) -> bytes:
        try:
            if slices is None:
                _write(self.descriptor, sent)
            else:
                self._send_now(sent)
                if not self._wait_readable(slices):
                    self._record_nothing(sent)
                    raise self.fail(hung_error(self.device_type, slices))
            frame = _read(self.reply_descriptor, _READ_SIZE)
        except OSError as error:
            frame = self._last_words(error)
        if not frame:
            raise self._nothing(sent)
        return frame

    def _send_now(self, frame: bytes) -> None:
        # Never waits for room: the main thread is the watchdog, and nobody watches it. A process that has
        # answered every request has read every request, so there is room unless it lies.
        try:
            if self.is_socket:
                passing.send(self.descriptor, frame, wait=False)
            else:
                poll = select.poll()
                poll.register(self.descriptor, select.POLLOUT)
                if not any(mask & select.POLLOUT for _, mask in poll.poll(0)):
                    raise BlockingIOError
                _write(self.descriptor, frame)
        except BlockingIOError:
            raise self._break("it answers requests that it has not read") from None

    def _wait_readable(self, slices: int) -> bool:
        poll = select.poll()
        poll.register(self.reply_descriptor, select.POLLIN)
        return self._waits(poll, slices)

    def _record_nothing(self, sent: bytes) -> None:
        if self.recorder is not None and self.rescue is None:
            self.recorder(sent, b"")

    def _nothing(self, sent: bytes) -> DeviceProcessError:
        """Why a read gave nothing: a packet of no bytes reads like the end, but only the end hangs up."""
        self._record_nothing(sent)
        if not self.is_socket or passing.hung_up(self.descriptor):
            return self._gone("its channel ended")
        return self._break("an empty frame")

    def _last_words(self, error: OSError) -> bytes:
        """The frame that the process left behind when it died with a request unread, or DeviceGoneError.

        The kernel reports the reset before it hands out what was queued; a process that failed says why.
        """
        try:
            # A pipe for replies may be open still, though nobody reads the one for requests.
            return _read(self.reply_descriptor, _READ_SIZE) if self._wait_readable(1) else b""
        except OSError:
            raise self._gone(error.strerror) from error

    def close(self) -> None:
        """See Channel."""
        for descriptor in {self.descriptor, self.reply_descriptor}:
            if descriptor >= 0:
                os.close(descriptor)
        self.descriptor = self.reply_descriptor = -1
