"""The channel and the transports with their compiled halves.

A class here has two bases: the compiled half, from `accel.vmm`, and the class in pure Python. The compiled
half makes the exchange of an access, and the pure class does what is left to do.

A compiled transport works with a channel in pure Python as well, and the other way round.
"""

from __future__ import annotations

from typing import Any, Final

from kvmbox.accel.vmm import CAME, LATE, NOT_RUNG, ChannelCore, Lock, PageEnd, StreamEnd
from kvmbox.channel.channel import Channel
from kvmbox.channel.shared import PageTransport
from kvmbox.channel.stream import PipeTransport, SocketTransport
from kvmbox.channel.transport import Link, LinkedTransport, Transport, TransportError, Waits, Words
from kvmbox.errors import DeviceProcessError
from kvmbox.wire.protocol import REPLY, WORDS


class CompiledPageTransport(PageEnd, PageTransport):
    """Shared memory."""

    def __init__(self, link: Link, device_type: str, waits: Waits, **seams: Any) -> None:
        super().__init__(link, device_type, waits, **seams)
        self.map(link.page)

    def close(self) -> None:
        """See Transport."""
        self.unmap()
        super().close()

    def rest_of_exchange(self) -> Words:
        """See Transport."""
        if self.left == LATE:
            self._sleep_late(int(self.slept))
        elif self.left == CAME:
            self._ask_to_spin()
        else:
            if self.left == NOT_RUNG:
                self._ring()
            self._sleep()
        return self._copied()


class _CompiledStream(StreamEnd):
    def rest_of_exchange(self) -> Words:
        """What `exchange_words` gives for the last request, whose reply is not four words."""
        assert isinstance(self, SocketTransport | PipeTransport)
        try:
            frame = self.received()
        except OSError as error:
            frame = self._last_words(error)
        return self._words_of(frame)


class CompiledSocketTransport(_CompiledStream, SocketTransport):
    """A socket."""


class CompiledPipeTransport(_CompiledStream, PipeTransport):
    """Two pipes."""


COMPILED_TRANSPORTS: Final[dict[type[LinkedTransport], type[LinkedTransport]]] = {
    PageTransport: CompiledPageTransport,
    SocketTransport: CompiledSocketTransport,
    PipeTransport: CompiledPipeTransport,
}


class CompiledChannel(ChannelCore, Channel):
    """A channel whose accesses are compiled."""

    pure_access = Channel.access

    def __init__(self, *arguments: Any, **options: Any) -> None:
        lock = Lock()
        self.set_up(lock, options["now"])
        super().__init__(*arguments, **options, lock=lock)

    def _reach_by(self, transport: Transport) -> None:
        super()._reach_by(transport)
        self.leads_to(transport)

    def finish_access(self, asked: Words, words: Words | None, limit: int) -> int:
        """The end of `access` where the compiled half cannot go on: the request `asked` has been sent.

        `words` is the header of the reply, if that is there. The lock is held, and given back.
        """
        try:
            try:
                if words is None:
                    words = self.transport.rest_of_exchange()
                reply, deadline, result, rest = words
                if reply == asked[0] | REPLY and result <= limit and not rest:
                    if deadline != self.deadline:
                        self._set_deadline(deadline, asked[1])
                    self._note((asked, b"", words, b""))
                else:
                    result = self._use(asked, words, limit)
            except (DeviceProcessError, TransportError) as error:
                result, _ = self._survive(error, WORDS.pack(*asked), limit)
            finally:
                self.waiting = 0
            if self._asked_for:
                self._follow_up(None)
            if self._left:
                result = self._complete(asked[0], asked[3], asked[2], result)
        finally:
            self._lock.release()
        self._wait_for_output()
        return result
