"""What is fuzzed: each target takes a frame to where it would arrive, and says what is wrong with that.

`stream` and `shared` are the two kinds of channel with their descriptors cut off, so that a frame costs no
system call; `socketpair`, `pipe` and `shm` are the same channels on what the kernel gives them.
"""

from __future__ import annotations

import mmap
import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from select import PIPE_BUF
from typing import Any, Final

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.implementations import channel_kind
from kvmbox.remote.channel.journal import Journal
from kvmbox.remote.process.crash_policy import Survival
from kvmbox.remote.transport.interface import Link, Transport, Waits
from kvmbox.remote.transport.ipc_table import TRANSPORTS, make_link
from kvmbox.remote.transport.shared_page import PageTransport
from kvmbox.remote.transport.stream import PipeTransport
from kvmbox.wire import page_layout
from kvmbox.wire.protocol import MAX_PAYLOAD
from tests.fuzz.frames import Liar
from tests.fuzz.plants import Parts
from tests.support.judge import (
    ACCESSES,
    BROKEN,
    GONE,
    HEADER,
    MAX_FRAME,
    NOW,
    WRITE_RUN,
    Ask,
    Verdict,
    grants,
    judge,
    refuse,
    send,
)
from tests.support.log import Calls

NEVER: Final = "is hung: "
BY_VCPU: Final = (*ACCESSES, WRITE_RUN)
"""The requests that the vCPU thread makes."""


class Fault(Exception):
    """The code under test did something else than what the definition asks for."""


class Target:
    """A channel that gets one hostile reply after the other."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.log: Calls = []
        self.frames = 0
        self.accepted = 0
        self.channel: Channel
        self._sequence = 0

    def step(self, liar: Liar) -> None:
        """One frame. Raises Fault."""
        ask = liar.ask()
        sequence = (self._sequence + 1) & 0xFFFF_FFFF or 1
        frame = liar.reply(ask, sequence)
        expected = self.expect(ask, sequence, frame)
        if expected.error == NEVER and ask.kind in BY_VCPU:
            return  # the vCPU thread waits until the main thread ends it: there is no such thread here
        self._sequence = sequence
        self.frames += 1
        self.log.clear()
        self.channel.forget_failure()
        deadline = self.channel.deadline
        try:
            value, payload = self.send(ask, frame)
        except DeviceProcessError as error:
            self._check_refusal(ask, frame, expected, error, deadline)
            return
        except Exception as error:
            raise Fault(f"{ask}, {frame.hex()}: raised {error!r}") from error
        self.accepted += 1
        if expected.error:
            raise Fault(f"{ask}, {frame.hex()}: accepted what {expected.error!r}")
        if (value, payload, self.log) != (expected.value, expected.payload, expected.log):
            got = value, payload, self.log
            raise Fault(f"{ask}, {frame.hex()}: gave {got}, not {expected}")
        if self.channel.failure is not None or self.channel.waiting:
            raise Fault(f"{ask}, {frame.hex()}: is good, and the channel is not")

    def _check_refusal(
        self, ask: Ask, frame: bytes, expected: Verdict, error: DeviceProcessError, deadline: int
    ) -> None:
        text = str(error)
        kind: type[DeviceProcessError] = {GONE: DeviceGoneError, BROKEN: ProtocolError}.get(
            expected.error, DeviceProcessError
        )
        wrong = (
            expected.error == ""
            or not text.startswith(f"device process 'fuzzed' {expected.error}")
            or not isinstance(error, kind)
            or not text.isprintable()
            or len(text) > 2500
            or self.log
            or self.channel.failure is not error
            or self.channel.waiting
            or self.channel.deadline != deadline
        )
        if wrong:
            raise Fault(f"{ask}, {frame.hex()}: expected {expected}, got {text!r}, applied {self.log}")
        try:
            send(self.channel, ask)
        except DeviceProcessError as again:
            if again is error:
                return
        raise Fault(f"{ask}, {frame.hex()}: answered after {error}")

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        """What has to come of it."""
        return judge(ask, sequence, frame)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        """Ask, with `frame` as the reply; value and payload of what was accepted."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the kernel gave."""
        self.channel.close()


class FedTransport(PipeTransport):
    """Requests of the main thread get the next frame, too, without a poll."""

    fed: bytes = b""

    def exchange(self, sent: bytes, slices: int | None) -> bytes:
        if not self.fed:
            raise self._nothing()
        return self.fed


class Keeper(Survival):
    """Keeps a journal, and rescues nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.journal: Journal = Journal(20)

    def journal_is_full(self) -> None:
        """See Survival."""
        self.journal.clear()


class StreamTarget(Target):
    """`stream` without descriptors: its `read` gives the frame. `options` are those of a channel."""

    def __init__(self, parts: Parts, **options: Any) -> None:
        super().__init__(parts)
        self._sequence = options.get("last_sequence", 0)
        self.channel = parts.channel("fuzzed", self, grants(self.log), now=lambda: NOW, **options)

    def open(self, device_type: str, waits: Waits) -> Transport:
        """See Opens."""
        nothing = Link(FedTransport, (-1, -1), ())
        self._transport = FedTransport(
            nothing,
            device_type,
            waits,
            read=lambda _descriptor, _size: self._transport.fed,
            write=lambda _descriptor, data: len(data),
        )
        return self.parts.transport(self._transport)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        self._transport.fed = frame
        return send(self.channel, ask)


def filled(frame: bytes) -> bytes:
    """What a page holds where `frame` was put: there are no short or long frames in it."""
    return frame[:MAX_FRAME].ljust(MAX_FRAME, b"\0")


def put(page: memoryview, frame: bytes) -> None:
    """Put `frame` where a reply lies, its first word at the place that is looked at."""
    at = 8 * page_layout.REPLY_WORD - page_layout.REPLY
    page[page_layout.REPLY : page_layout.REPLY + len(frame)] = frame[8 : 8 + at] + frame[:8] + frame[8 + at :]


def judge_page(ask: Ask, sequence: int, frame: bytes, last: int, nothing: str) -> Verdict:
    """What has to come of a frame in a page whose last reply's first word is `last`."""
    whole = filled(frame)
    if int.from_bytes(whole[:8], "little") == last:
        return Verdict(0, b"", [], nothing)
    length = HEADER.unpack_from(whole)[8]
    if length > MAX_PAYLOAD:
        return Verdict(0, b"", [], BROKEN)
    return judge(ask, sequence, whole[: HEADER.size + length])


class Looks:
    """The looks of a VMM that spins: the reply is there at the first one."""

    def __init__(self, put_reply: Callable[[int, bytes], int]) -> None:
        self._put_reply = put_reply

    def __iter__(self) -> Iterator[int]:
        self._put_reply(0, b"")
        return iter(range(3))


class FedPage(PageTransport):
    """Ringing the doorbell puts the reply into the page."""

    def _ring_now(self) -> None:
        self._ring()

    def expect_by(self, looks: Looks | range) -> None:
        """How the VMM looks for the reply if it spins."""
        self._looks = looks  # type: ignore[assignment]


class SharedTarget(Target):
    """`shared` without descriptors but for a doorbell that is at its end. Some frames find it spinning."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._page = mmap.mmap(-1, page_layout.SIZE)
        self._view = memoryview(self._page)
        self._words = self._view.cast("Q")
        self._frame = b""
        self._doorbell, ringer = os.pipe()
        os.close(ringer)
        self.channel = parts.channel("fuzzed", self, grants(self.log), now=lambda: NOW)
        self._words[page_layout.DEVICE_WAITS] = 1

    def open(self, device_type: str, waits: Waits) -> Transport:
        """See Opens."""
        self._transport = FedPage(
            Link(FedPage, (-1, self._doorbell), (), self._page),
            device_type,
            waits,
            write=self._rung,
            close=lambda _descriptor: None,
        )
        return self.parts.transport(self._transport)

    def _rung(self, _descriptor: int, _data: bytes) -> int:
        put(self._view, self._frame)
        return 1

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        return judge_page(ask, sequence, frame, self._words[page_layout.REPLY_WORD], GONE)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        self._frame = filled(frame)
        is_awake = frame[-1:] < b"\x40" and ask.kind in ACCESSES
        self._words[page_layout.DEVICE_WAITS] = int(not is_awake)
        self._transport.expect_by(Looks(self._rung) if is_awake else range(3))
        self._transport.allow_spinning(frame[-1:] < b"\x80")
        return send(self.channel, ask)

    def close(self) -> None:
        self._words.release()
        self._view.release()
        super().close()
        os.close(self._doorbell)


class RealTarget(Target):
    """A channel of kind `ipc` with its descriptors, made anew after each frame that it refused."""

    def __init__(self, parts: Parts, ipc: str) -> None:
        super().__init__(parts)
        self._ipc = ipc
        self._link: Link
        self._way = 0
        self._open()

    def _open(self) -> None:
        self._sequence = 0
        # The compiled one where kvmbox runs it, unless a bug is planted in the channel, or now and then.
        is_pure = self.parts.channel is not Channel or self._way & 1
        self._link = TRANSPORTS[self._ipc].connect([], None) if is_pure else make_link(self._ipc)
        kind = self.parts.channel if is_pure else channel_kind()
        self.channel = kind("fuzzed", self._link, grants(self.log), now=lambda: NOW, slice_ms=1)

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        if self._is_full and ask.kind not in BY_VCPU:
            return refuse(BROKEN)  # it answers what it has not read
        nothing = GONE if self._has_ended else NEVER
        page = self._link.page
        if page is not None:
            place = 8 * page_layout.REPLY_WORD
            last = int.from_bytes(page[place : place + 8], "little")
            return judge_page(ask, sequence, frame, last, nothing)
        if not frame:
            # No bytes: a packet of a socket, or nothing at all.
            how = (
                BROKEN if self._ipc == "socketpair" and not (self._has_ended or self._is_silent) else nothing
            )
            return Verdict(0, b"", [], how)
        return judge(ask, sequence, frame[:PIPE_BUF] if self._ipc == "pipe" else frame)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        """The reply lies there before it is asked for; where there is none, the main thread asks."""
        page = self._link.page
        if page is not None:
            with memoryview(page) as view:
                put(view, filled(frame))
        elif frame or (self._ipc == "socketpair" and not self._is_silent):
            os.write(self._link.device[-1], frame if self._ipc == "socketpair" else frame[:PIPE_BUF])
        if self._is_full and ask.kind not in BY_VCPU:
            self._fill()
        if self._has_ended:
            self._close_device(1 if self._way & 64 and self._ipc == "pipe" else None)
        if ask.kind == WRITE_RUN:
            self.channel.transact(ask.kind, ask.device, 3, b"")
            return 0, b""
        return send(self.channel, ask)

    @property
    def _is_silent(self) -> bool:
        return self._way & 2 == 2

    @property
    def _has_ended(self) -> bool:
        """Whether the process has ended, with the request unread."""
        return self._way & 12 == 12

    @property
    def _is_full(self) -> bool:
        """Whether earlier requests lie there unread."""
        return self._way & 48 == 48 and not self._has_ended and self._ipc != "shm"

    def _fill(self) -> None:
        descriptor = self._link.vmm[0]
        os.set_blocking(descriptor, False)
        with suppress(BlockingIOError):
            while True:
                os.write(descriptor, bytes(HEADER.size))
        os.set_blocking(descriptor, True)

    def step(self, liar: Liar) -> None:
        way = liar.dice.randrange(256)
        if (way ^ self._way) & 1:
            self._way = way
            self._drop()
            self._open()
        self._way = way
        super().step(liar)
        if self.channel.failure is not None or self._has_ended:
            self._drop()
            self._open()
        else:
            self._take_requests()

    def _take_requests(self) -> None:
        requests = self._link.device[0]
        poll = select.poll()
        poll.register(requests, select.POLLIN)
        while poll.poll(0):
            os.read(requests, 1 << 16)

    def _close_device(self, number: int | None = None) -> None:
        """Close the process's end, or as many of its descriptors."""
        device = self._link.device
        self._link = self._link.replaced(device=device[number:] if number else ())
        for descriptor in device[:number]:
            os.close(descriptor)

    def _drop(self) -> None:
        self.channel.close()
        self.channel.close()  # again: nothing happens
        self._close_device()

    def close(self) -> None:
        self._drop()
