"""The channel on two pipes in packet mode: frames keep their boundaries, and the end of either pipe is told.

What a lying peer can do over a socket is in `test_channel`; the checks are the same ones.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from typing import Any, Final

import pytest

from kvmbox.base.errors import DeviceGoneError, DeviceProcessError, ProtocolError
from kvmbox.contract.model import Effect, HostOutput
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.transport.ipc_table import make_link
from kvmbox.wire import protocol
from kvmbox.wire.effect_kinds import EFFECT
from kvmbox.wire.effects import encode_effects, encode_reply
from kvmbox.wire.protocol import HEADER, MAX_FRAME, MAX_PAYLOAD, NO_DEADLINE, Request, request_word
from tests.support.halves import Half
from tests.support.log import Log

NOW: Final = 5_000
READ: Final = request_word(protocol.READ, 0, 1)


class Peer:
    """A channel, and the device's ends of its two pipes."""

    def __init__(self, half: Half) -> None:
        made: list[int] = []
        link = half.pipe.connect(made, None)
        self.requests, self.replies = link.device
        self.log = Log()
        self.channel = half.channel(
            "uart",
            link,
            [Grants("COM1", output=self.log.note("output"))],
            now=lambda: NOW,
            deadline_changed=self.log.note("deadline"),
        )

    def say(self, frame: bytes) -> None:
        assert os.write(self.replies, frame) == len(frame)

    def reply(self, sequence: int = 1, value: int = 0, **fields: Any) -> None:
        """A reply to a byte read of COM1."""
        request = Request(protocol.READ, 0, 1, sequence)
        effects: list[tuple[int, Effect]] = [(0, HostOutput(data)) for data in fields.pop("output", [])]
        self.say(encode_reply(request, fields.pop("deadline", None), value, effects, **fields))

    def heard(self) -> bytes:
        return os.read(self.requests, MAX_FRAME + 1)

    def stop_listening(self) -> None:
        os.close(self.requests)
        self.requests = -1

    def stop_talking(self) -> None:
        os.close(self.replies)
        self.replies = -1

    def read(self, limit: int = 0xFF) -> int:
        return self.channel.access(READ, 5, 0, limit)

    def close(self) -> None:
        self.channel.close()
        for descriptor in (self.requests, self.replies):
            if descriptor >= 0:
                os.close(descriptor)


@pytest.fixture
def peer(half: Half) -> Iterator[Peer]:
    peer = Peer(half)
    yield peer
    peer.close()


def test_each_request_and_reply_is_a_packet(peer: Peer) -> None:
    # Replies that lie there together are not taken for one.
    for sequence in range(1, 5):
        peer.reply(sequence, value=sequence)
    assert [peer.read() for _ in range(4)] == [1, 2, 3, 4]
    for sequence in range(1, 5):
        assert peer.heard() == Request(protocol.READ, 0, 1, sequence, NOW, 0, 5).encode()
    assert peer.channel.waiting == 0


def test_effects_and_the_longest_frame_come_through(peer: Peer) -> None:
    text = bytes(index & 0xFF for index in range(MAX_PAYLOAD - EFFECT.size))
    peer.reply(value=7, output=[text], deadline=9_000)
    assert peer.read() == 7
    assert peer.log == [("output", text), ("deadline", 9_000, NOW)]


def test_longest_request_comes_through(peer: Peer) -> None:
    request = Request(protocol.WRITE_RUN, 0, 0, 1, NOW, 0, 4, b"x" * MAX_PAYLOAD)
    peer.say(encode_reply(request, None, 0, []))
    peer.channel.transact(protocol.WRITE_RUN, 0, 4, request.payload)
    assert peer.heard() == request.encode()


def test_main_thread_asks_in_the_same_way(peer: Peer) -> None:
    request = Request(protocol.RECEIVE, 0, 0, 1, NOW, payload=b"typed")
    peer.say(encode_reply(request, None, 3, []))
    assert peer.channel.request(protocol.RECEIVE, payload=b"typed", limit=5) == (3, b"")
    assert peer.heard() == request.encode()


@pytest.mark.parametrize(
    "frame",
    [
        b"x",
        bytes(HEADER.size - 1),
        HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 0, 2, NO_DEADLINE, 0, 0, 0),
        HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 0, 1, NO_DEADLINE, 0x100, 0, 0),
        HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 0, 1, NO_DEADLINE, 0, 0, 1),
        HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 1, 1, NO_DEADLINE, 0, 0, 0),
        HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 0, 1, NO_DEADLINE, 0, 0, 5) + b"stray",
        bytes(MAX_FRAME),
    ],
    ids=["a byte", "short", "sequence", "value", "length", "count", "stray", "zeros"],
)
def test_frame_that_lies_breaks_the_protocol(peer: Peer, frame: bytes) -> None:
    peer.say(frame)
    with pytest.raises(ProtocolError, match="'uart' broke the protocol"):
        peer.read()
    assert peer.log == []
    with pytest.raises(ProtocolError):
        peer.channel.request(protocol.ADVANCE)


def test_frame_that_is_longer_than_a_packet_is_not_put_together(peer: Peer) -> None:
    # The kernel makes two packets of it: the first of 4096 bytes is no frame of this length.
    body = encode_effects([(0, HostOutput(bytes(MAX_PAYLOAD)))])
    peer.say(HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 1, 1, NO_DEADLINE, 0, 0, len(body)) + body)
    with pytest.raises(ProtocolError, match="announces a payload"):
        peer.read()
    assert peer.log == []


# --- Ends ------------------------------------------------------------------------------------------------


def test_process_that_neither_listens_nor_talks_is_gone(peer: Peer) -> None:
    peer.stop_listening()
    peer.stop_talking()
    with pytest.raises(DeviceGoneError):
        peer.read()
    with pytest.raises(DeviceGoneError):
        peer.channel.request(protocol.ADVANCE)


def test_process_that_stops_talking_is_gone(peer: Peer) -> None:
    peer.stop_talking()
    with pytest.raises(DeviceGoneError, match="its channel ended"):
        peer.read()


def test_end_while_the_vcpu_thread_waits_ends_the_wait(peer: Peer) -> None:
    caught: list[BaseException] = []

    def read() -> None:
        try:
            peer.read()
        except DeviceProcessError as error:
            caught.append(error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert len(peer.heard()) == HEADER.size
    assert peer.channel.waiting == 1
    peer.stop_talking()
    thread.join(30)
    assert [type(error) for error in caught] == [DeviceGoneError]


@pytest.mark.parametrize("talks_on", [False, True])
def test_last_words_of_a_process_that_stopped_listening_are_heard(peer: Peer, talks_on: bool) -> None:
    peer.say(HEADER.pack(protocol.ERROR, 0, 0, 0, 0, NO_DEADLINE, 0, 0, 11) + b"KeyError: 5")
    peer.stop_listening()
    if not talks_on:
        peer.stop_talking()
    with pytest.raises(DeviceProcessError, match="failed: KeyError: 5"):
        peer.read()


def test_process_that_stops_listening_and_says_nothing_is_waited_for_one_slice(peer: Peer) -> None:
    peer.stop_listening()
    with pytest.raises(DeviceGoneError):
        peer.read()


def test_request_without_an_answer_counts_as_hung(peer: Peer) -> None:
    with pytest.raises(DeviceProcessError, match="is hung: no reply within 50 ms"):
        peer.channel.request(protocol.ADVANCE, slices=1)
    with pytest.raises(DeviceProcessError, match="is hung"):
        peer.read()


def test_request_does_not_wait_for_room_that_a_liar_left_none_of(peer: Peer) -> None:
    # Each packet has a page of the pipe.
    pages = fcntl.fcntl(peer.requests, fcntl.F_GETPIPE_SZ) // 4096
    for sequence in range(1, pages + 1):
        peer.reply(sequence)
        peer.read()
    with pytest.raises(ProtocolError, match="it answers requests that it has not read"):
        peer.channel.request(protocol.ADVANCE)


def test_connect_talks_to_another_process_and_closes_nothing_twice(peer: Peer) -> None:
    link = make_link("pipe")
    old = (peer.requests, peer.replies)
    peer.channel.connect(link)
    peer.requests, peer.replies = link.device
    peer.reply(value=4)
    assert peer.read() == 4
    for descriptor in old:
        os.close(descriptor)
    peer.channel.close()
    peer.channel.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(link.vmm[0])
