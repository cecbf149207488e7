"""The channel and the transports with their compiled halves.

A class here has two bases: the compiled half, from `vmm`, and the class in pure Python. The compiled
half makes the exchange of an access, and the pure class does what is left to do.

A compiled transport works with a channel in pure Python as well, and the other way round.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from kvmbox.base.errors import DeviceProcessError
from kvmbox.fast.vmm import (
    CAME,
    LATE,
    NOT_RUNG,
    WOKEN,
    ChannelCore,
    JournalCore,
    Lock,
    PageEnd,
    SteadyCore,
    StreamEnd,
    learn_follow_ups,
)
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.deadlines import REPLY_SLICES
from kvmbox.remote.channel.effect_calls import MAX_FOLLOW_UPS, FollowUp, Posted
from kvmbox.remote.channel.journal import JOURNAL_LIMIT, Entry, Journal
from kvmbox.remote.channel.steady_reads import SteadyReads
from kvmbox.remote.transport.interface import (
    NO_HEADER,
    Link,
    LinkedTransport,
    Transport,
    TransportError,
    Waits,
    Words,
    frame_of,
)
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.remote.transport.stream import PipeTransport, SocketTransport, StreamTransport
from kvmbox.wire.protocol import MAX_STEADY, REPLY, STEADY_KINDS, WORDS

_FAILURES: Final = (DeviceProcessError, TransportError)
learn_follow_ups(FollowUp, Posted, MAX_FOLLOW_UPS, REPLY_SLICES, frame_of, _FAILURES)


class CompiledPageTransport(PageEnd, PageTransport):
    """Shared memory."""

    def __init__(self, link: Link, device_type: str, waits: Waits, **seams: Any) -> None:
        super().__init__(link, device_type, waits, **seams)
        self.map(link.page)

    def close(self) -> None:
        """See Transport."""
        self.unmap()
        super().close()

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        """See Transport. Who waits for ever waits as for an access."""
        if slices is None:
            words = self.exchanged(sent)
            if words is None:
                words = self.rest_of_exchange()
            if not isinstance(words, bool):
                return frame_of(words, self.payload(words))
        return super().exchange(sent, slices)

    def payload(self, words: Words) -> bytes:
        """See Transport."""
        taken = self.taken_payload()
        return super().payload(words) if taken is None else taken

    def rest_of_exchange(self) -> Words:
        """See Transport."""
        if self.left == LATE:
            self._sleep_late(int(self.slept))
            if self.slept:
                self._had_slept()
        elif self.left == WOKEN:
            self._had_slept()
        elif self.left == CAME:
            self._ask_to_spin()
        else:
            if self.left == NOT_RUNG:
                self._ring()
            self._sleep()
        return self._copied()


class _CompiledStream(StreamEnd):
    def payload(self, words: Words) -> bytes:
        """See Transport."""
        assert isinstance(self, SocketTransport | PipeTransport)
        taken = self.taken_payload()
        if taken is not None:
            return taken
        # The compiled half reads a header that announces nothing: Python's frame is then of an earlier reply.
        return StreamTransport.payload(self, words) if words is NO_HEADER or words[3] >> 32 else b""

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


class CompiledSteadyReads(SteadyCore, SteadyReads):
    """The counts that compiled run loops compare. Their values are with their routes."""


class CompiledJournal(Journal):
    """A journal that compiled code adds entries to. They become Python's when Python looks at them."""

    def __init__(self, limit: int = JOURNAL_LIMIT) -> None:
        super().__init__(limit)
        self.core = JournalCore(limit)

    def _settle(self) -> None:
        super().extend(self.core.take())
        self.core.listed = super().__len__()

    def append(self, entry: Entry, /) -> None:
        """See Journal: an entry without payloads."""
        if not self.core.add(entry[0], entry[2]):
            self._settle()
            self.core.add(entry[0], entry[2])

    def note(self, entry: Entry) -> None:
        """See Journal."""
        if entry[1] or entry[3]:
            self._settle()
            super().append(entry)
            self.core.listed += 1
            self._payload_bytes += len(entry[1]) + len(entry[3])
        else:
            self.append(entry)

    def clear(self) -> None:
        """See Journal."""
        super().clear()
        self.core.drop()

    def __len__(self) -> int:
        return super().__len__() + self.core.count

    def __iter__(self) -> Iterator[Entry]:
        self._settle()
        return super().__iter__()


class CompiledChannel(ChannelCore, Channel):
    """A channel whose accesses are compiled."""

    pure_access = Channel.access
    pure_next = Channel._next
    pure_tell = Channel._tell

    def __init__(self, *arguments: Any, **options: Any) -> None:
        lock = Lock()
        steady = CompiledSteadyReads(options["now"])
        self.set_up(lock, options["now"], steady)
        super().__init__(*arguments, **options, lock=lock, steady=steady)
        self._lines = [device.irq_lines for device in self._grants]
        self._media = [device.media for device in self._grants]
        if isinstance(self._journal, CompiledJournal):
            self.keeps(self._journal.core)

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
                    self.waiting = 0
                reply, deadline, result, rest = words
                is_read = asked[0] & 0xFF in STEADY_KINDS
                if reply == asked[0] | REPLY and result <= limit and rest <= (MAX_STEADY if is_read else 0):
                    if deadline != self.deadline:
                        self._set_deadline(deadline, asked[1])
                    if is_read:
                        self.steady.ends(asked, words)
                    self._note((asked, b"", words, b""))
                else:
                    self.steady.changed()
                    result = self._use(asked, words, limit)
            except _FAILURES as error:
                self.steady.changed()
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
