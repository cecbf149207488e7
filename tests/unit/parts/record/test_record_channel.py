"""The hook in the channel: every exchange as it crossed the wire, also one that killed the process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from kvmbox.base.errors import DeviceProcessError
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import Request, request_word
from tests.support.links import socket_link

NOW = 77
READ_LSR = Request(protocol.READ, 0, 1, 1, NOW, 0, 5)
LSR_WORD = request_word(protocol.READ, 0, 1)


class Wire:
    """A channel whose device process has said all it will say in advance."""

    def __init__(self, *, recorded: bool = True) -> None:
        self.vmm_end, self.device_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.seen: list[tuple[bytes, bytes]] = []
        self.channel = Channel(
            "uart",
            socket_link(self.vmm_end.fileno()),
            [Grants("COM1")],
            now=lambda: NOW,
            record=(lambda request, reply: self.seen.append((request, reply))) if recorded else None,
        )

    def say(self, reply: bytes) -> bytes:
        """The next reply of the process."""
        self.device_end.send(reply)
        return reply

    def heard(self) -> bytes:
        """What the process was asked."""
        return self.device_end.recv(protocol.MAX_FRAME)


@pytest.fixture
def wire() -> Iterator[Wire]:
    wire = Wire()
    yield wire
    wire.vmm_end.close()
    wire.device_end.close()


def test_access_is_recorded_as_it_crossed_the_wire(wire: Wire) -> None:
    reply = wire.say(encode_reply(READ_LSR, None, 0x60, []))

    assert wire.channel.access(LSR_WORD, 5, 0, 0xFF) == 0x60
    assert wire.seen == [(wire.heard(), reply)]
    assert wire.seen[0][0] == READ_LSR.encode()


def test_request_is_recorded_with_its_payload(wire: Wire) -> None:
    request = Request(protocol.RECEIVE, 0, 0, 1, NOW, payload=b"typed")
    reply = wire.say(encode_reply(request, None, 5, []))

    wire.channel.request(protocol.RECEIVE, payload=b"typed", limit=5)

    assert wire.seen == [(request.encode(), reply)]


@pytest.mark.parametrize("through_request", [False, True])
@pytest.mark.parametrize("reply", [b"lies", b"\0" * (protocol.MAX_FRAME + 1)])
def test_reply_that_is_refused_is_recorded_too(wire: Wire, reply: bytes, through_request: bool) -> None:
    wire.say(reply)

    channel = wire.channel
    ask = partial(channel.request, protocol.ADVANCE)
    access = partial(channel.access, LSR_WORD, 5, 0, 0xFF)

    with pytest.raises(DeviceProcessError):
        (ask if through_request else access)()

    assert [answer for _, answer in wire.seen] == [reply]


def test_request_that_killed_the_process_is_recorded_without_a_reply(wire: Wire) -> None:
    # Half-closed, so that the request is taken, as by a process that reads it and dies.
    wire.device_end.shutdown(socket.SHUT_WR)

    with pytest.raises(DeviceProcessError):
        wire.channel.access(LSR_WORD, 5, 0, 0xFF)

    assert wire.seen == [(READ_LSR.encode(), b"")]


def test_request_that_is_not_answered_in_time_is_recorded_without_a_reply(wire: Wire) -> None:
    with pytest.raises(DeviceProcessError, match="hung"):
        wire.channel.request(protocol.ADVANCE, slices=1)

    assert wire.seen == [(wire.heard(), b"")]


def test_channel_without_a_recorder_works() -> None:
    wire = Wire(recorded=False)
    wire.say(encode_reply(READ_LSR, None, 0x60, []))

    assert wire.channel.access(LSR_WORD, 5, 0, 0xFF) == 0x60
    assert os.fstat(wire.vmm_end.fileno())
    wire.vmm_end.close()
    wire.device_end.close()
