"""What is fuzzed: each target takes a frame to where it would arrive, and says what is wrong with that.

`stream` and `shared` are the two kinds of channel with their descriptors cut off, so that a frame costs no
system call; `socketpair`, `pipe` and `shm` are the same channels on what the kernel gives them.
"""

from __future__ import annotations

import mmap
import os
import select
from select import PIPE_BUF
from types import SimpleNamespace
from typing import Final

from kvmbox.channel import channel as channel_module
from kvmbox.channel import shared as shared_module
from kvmbox.channel import stream as stream_module
from kvmbox.channel.channel import Channel, Grants
from kvmbox.channel.links import Link, channel_on, make_link
from kvmbox.channel.shared import SharedChannel
from kvmbox.channel.stream import StreamChannel
from kvmbox.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.wire import page_layout as layout
from kvmbox.wire.protocol import MAX_PAYLOAD, request_word
from tests.fuzz.frames import ACCESSES, BROKEN, GONE, HEADER, MAX_FRAME, NOW, Ask, Liar, Log, Verdict, judge

NEVER: Final = "is hung: "


class Fault(Exception):
    """The code under test did something else than what the definition asks for."""


def grants(log: Log) -> list[Grants]:
    """What the process may do; see `frames`. All that is done is noted."""
    return [
        Grants(
            "a",
            irq_lines=[
                lambda level, coalesced: log.append(("irq", 0, level, coalesced)),
                lambda level, coalesced: log.append(("irq", 1, level, coalesced)),
            ],
            output=lambda data: log.append(("output", data)),
        ),
        Grants(
            "b",
            input_room=lambda count: log.append(("room", count)),
            reset=lambda: log.append(("reset",)),
            stop=lambda *arguments: log.append(("stop", *arguments)),
        ),
        Grants("c"),
    ]


class Target:
    """A channel that gets one hostile reply after the other."""

    def __init__(self) -> None:
        self.log: Log = []
        self.frames = 0
        self.accepted = 0
        self.channel: Channel

    def step(self, liar: Liar) -> None:
        """One frame. Raises Fault."""
        ask = liar.ask()
        sequence = self.channel._sequence + 1
        frame = liar.reply(ask, sequence)
        expected = self.expect(ask, sequence, frame)
        if expected.error == NEVER and ask.kind in ACCESSES:
            return  # the vCPU thread waits until the main thread ends it: there is no such thread here
        self.frames += 1
        self.log.clear()
        self.channel._failure = None
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

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        """What has to come of it."""
        return judge(ask, sequence, frame)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        """Ask, with `frame` as the reply; value and payload of what was accepted."""
        raise NotImplementedError

    def ask(self, ask: Ask) -> tuple[int, bytes]:
        """The request, by whom it would be made."""
        if ask.kind in ACCESSES:
            word = request_word(ask.kind, ask.device, ask.size)
            return self.channel.access(word, 3, 0x55, ask.limit), b""
        return self.channel.request(ask.kind, device=ask.device, limit=ask.limit, offset=3, value=0x55)

    def close(self) -> None:
        """Give back what the kernel gave."""
        self.channel.close()


class FedStream(StreamChannel):
    """Requests that are not accesses get the next frame, too."""

    fed: bytes = b""

    def _exchange(self, sent: bytes, slices: int | None) -> bytes:
        if not self.fed:
            raise self._nothing(sent)
        return self.fed


class StreamTarget(Target):
    """`stream` without descriptors: its `read` gives the frame."""

    def __init__(self) -> None:
        super().__init__()
        self._channel = self.channel = FedStream(
            "fuzzed", -1, grants(self.log), now=lambda: NOW, reply_descriptor=-1
        )
        self._saved = vars(stream_module)["_read"], vars(stream_module)["_write"]
        vars(stream_module)["_read"] = lambda _descriptor, _size: self._channel.fed
        vars(stream_module)["_write"] = lambda _descriptor, _data: None

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        self._channel.fed = frame
        return self.ask(ask)

    def close(self) -> None:
        vars(stream_module)["_read"], vars(stream_module)["_write"] = self._saved


def filled(frame: bytes) -> bytes:
    """What a page holds where `frame` was put: there are no short or long frames in it."""
    return frame[:MAX_FRAME].ljust(MAX_FRAME, b"\0")


def put(page: memoryview, frame: bytes) -> None:
    """Put `frame` where a reply lies, its first word at the place that is looked at."""
    at = 8 * layout.REPLY_WORD - layout.REPLY
    page[layout.REPLY : layout.REPLY + len(frame)] = frame[8 : 8 + at] + frame[:8] + frame[8 + at :]


def judge_page(ask: Ask, sequence: int, frame: bytes, last: int, nothing: str) -> Verdict:
    """What has to come of a frame in a page whose last reply's first word is `last`."""
    whole = filled(frame)
    if int.from_bytes(whole[:8], "little") == last:
        return Verdict(0, b"", [], nothing)
    length = HEADER.unpack_from(whole)[8]
    if length > MAX_PAYLOAD:
        return Verdict(0, b"", [], BROKEN)
    return judge(ask, sequence, whole[: HEADER.size + length])


class FedShared(SharedChannel):
    """Ringing the doorbell puts the reply into the page."""

    def _ring_now(self) -> None:
        self._ring()


class SharedTarget(Target):
    """`shared` without descriptors but for a doorbell that is at its end. Some frames find it spinning."""

    def __init__(self) -> None:
        super().__init__()
        self._page = mmap.mmap(-1, layout.SIZE)
        self._view = memoryview(self._page)
        self._words = self._view.cast("Q")
        self._frame = b""
        doorbell, ringer = os.pipe()
        os.close(ringer)
        self.channel = FedShared("fuzzed", self._page, -1, doorbell, grants(self.log), now=lambda: NOW)
        self._doorbell = doorbell
        self._saved = vars(shared_module)["os"]
        vars(shared_module)["os"] = SimpleNamespace(write=self._rung, read=os.read, close=lambda _: None)
        self._words[layout.DEVICE_WAITS] = 1

    def _rung(self, _descriptor: int, _data: bytes) -> int:
        put(self._view, self._frame)
        return 1

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        return judge_page(ask, sequence, frame, self._words[layout.REPLY_WORD], GONE)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        self._frame = filled(frame)
        assert isinstance(self.channel, SharedChannel)
        self.channel.allow_spinning(frame[-1:] < b"\x80")
        return self.ask(ask)

    def close(self) -> None:
        self._words.release()
        self._view.release()
        super().close()  # its descriptors are closed by what stands for `os`
        vars(shared_module)["os"] = self._saved
        os.close(self._doorbell)


class RealTarget(Target):
    """A channel of kind `ipc` with its descriptors, made anew after each frame that it refused."""

    def __init__(self, ipc: str) -> None:
        super().__init__()
        self._ipc = ipc
        self._slice = vars(channel_module)["WAIT_SLICE_MS"]
        vars(channel_module)["WAIT_SLICE_MS"] = 1
        self._link: Link
        self._open()

    def _open(self) -> None:
        self._link = make_link(self._ipc)
        self.channel = channel_on(self._link, "fuzzed", grants(self.log), now=lambda: NOW)

    def expect(self, ask: Ask, sequence: int, frame: bytes) -> Verdict:
        if not frame and self._ipc != "shm":
            # No bytes: a packet of a socket, nothing at all in a pipe.
            how = BROKEN if self._ipc == "socketpair" else NEVER
            return Verdict(0, b"", [], how)
        if self._ipc == "pipe":
            return judge(ask, sequence, frame[:PIPE_BUF])
        page = self._link.page
        if page is None:
            return judge(ask, sequence, frame)
        place = 8 * layout.REPLY_WORD
        return judge_page(ask, sequence, frame, int.from_bytes(page[place : place + 8], "little"), NEVER)

    def send(self, ask: Ask, frame: bytes) -> tuple[int, bytes]:
        """The reply lies there before it is asked for; where there is none, the main thread asks."""
        page = self._link.page
        if page is not None:
            with memoryview(page) as view:
                put(view, filled(frame))
        elif frame or self._ipc == "socketpair":
            os.write(self._link.device[-1], frame if self._ipc == "socketpair" else frame[:PIPE_BUF])
        return self.ask(ask)

    def step(self, liar: Liar) -> None:
        super().step(liar)
        if self.channel.failure is not None:
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

    def _drop(self) -> None:
        self.channel.close()
        for descriptor in self._link.device:
            os.close(descriptor)

    def close(self) -> None:
        self._drop()
        vars(channel_module)["WAIT_SLICE_MS"] = self._slice
