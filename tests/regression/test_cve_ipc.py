"""Bugs of other hypervisors between processes, by class: a number from the other side that was believed.

What the channel checks of replies in general is in tests/unit/channel; here is the class of one advisory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kvmbox.base.errors import ProtocolError
from kvmbox.contract.model import HostOutput, IrqLine, Stop
from kvmbox.remote.channel.connection import Channel
from kvmbox.remote.channel.grants import Grants
from kvmbox.remote.transport.ipc_table import make_link
from kvmbox.wire import protocol
from kvmbox.wire.effect_kinds import BY_CLASS, EFFECT
from kvmbox.wire.protocol import request_word

SIZES = (1, 2, 4)

# --- XSA-199 (CVE-2016-9637): a number from the other side, taken as an index ------------------------------


class Peer:
    """The VMM's channel over a socket or two pipes, and the far end in the hands of an attacker."""

    def __init__(self, ipc: str) -> None:
        # Requests lie unread; what the attacker says is there before they are sent.
        link = make_link(ipc)
        self._device_end = link.device
        self.log: list[tuple[object, ...]] = []
        self.channel = Channel(
            "debug",
            link,
            [
                Grants("debug-exit", stop=lambda *write: self.log.append(("stop", *write))),
                Grants(
                    "COM1",
                    irq_lines=[lambda *edge: self.log.append(("irq", *edge))],
                    output=lambda data: self.log.append(("output", len(data))),
                ),
            ],
            now=lambda: 1_000,
        )

    def answer(self, kind: int, *, size: int, value: int = 0, device: int = 0, effects: bytes = b"") -> None:
        """A reply that is right but for what the test puts in; `effects` is one effect as bytes."""
        count = 1 if effects else 0
        header = protocol.HEADER.pack(
            kind | protocol.REPLY, device, size, count, 1, protocol.NO_DEADLINE, value, 0, len(effects)
        )
        os.write(self._device_end[-1], header + effects)

    def access(self, kind: int, *, size: int, value: int = 0, limit: int = 0) -> int:
        """The guest's access to the debug-exit port."""
        return self.channel.access(request_word(kind, 0, size), 0, value, limit)

    def close(self) -> None:
        """Close both ends."""
        self.channel.close()
        for descriptor in self._device_end:
            os.close(descriptor)


@pytest.fixture(params=["socketpair", "pipe"])
def peer(request: pytest.FixtureRequest) -> Iterator[Peer]:
    one = Peer(request.param)
    yield one
    one.close()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("beyond", [1, 1 << 8, 1 << 31])
def test_xsa_199_reply_value_beyond_the_access_size_is_a_protocol_break(
    peer: Peer, size: int, beyond: int
) -> None:
    """QEMU under Xen took the port number of a request from a ring that the guest could write, 64 bits of it,
    as the index of a table of 65,536: a wild pointer.

    Here every number of a reply is checked against what *this* request allows, before any is used: a byte
    read yields a byte. What breaks that ends the process with its name (status 8), and has no effect.
    """
    largest = (1 << 8 * size) - 1
    peer.answer(protocol.READ, size=size, value=largest + beyond)
    with pytest.raises(ProtocolError, match="value 0x"):
        peer.access(protocol.READ, size=size, limit=largest)
    assert peer.log == []


def test_xsa_199_reply_value_of_the_whole_size_passes(peer: Peer) -> None:
    """The control: the check looks at the bound, and not at anything unusual."""
    peer.answer(protocol.READ, size=4, value=0xFFFF_FFFF)
    assert peer.access(protocol.READ, size=4, limit=0xFFFF_FFFF) == 0xFFFF_FFFF


@pytest.mark.parametrize(("device", "pin"), [(0, 0), (1, 1), (1, 255), (2, 0), (255, 0)], ids=str)
def test_xsa_199_effect_with_an_index_that_was_not_granted_is_a_protocol_break(
    peer: Peer, device: int, pin: int
) -> None:
    """Device and pin of an effect are indices into the VMM's lists: both are compared with their lengths."""
    effect = EFFECT.pack(BY_CLASS[IrqLine].tag, device, pin, 1, 0)
    peer.answer(protocol.WRITE, size=1, effects=effect)
    with pytest.raises(ProtocolError, match="effect"):
        peer.access(protocol.WRITE, size=1, value=1)
    assert peer.log == []


@pytest.mark.parametrize("beyond", [0, 1])
def test_xsa_199_length_is_bounded_by_the_frame(peer: Peer, beyond: int) -> None:
    """Output that fills the largest frame passes; a byte more does not, though it says its own length."""
    text = b"x" * (protocol.MAX_PAYLOAD - EFFECT.size + beyond)
    effect = EFFECT.pack(BY_CLASS[HostOutput].tag, 1, 0, 0, len(text))
    peer.answer(protocol.WRITE, size=1, effects=effect + text)
    if beyond:
        with pytest.raises(ProtocolError, match=r"a frame of \d+ bytes"):
            peer.access(protocol.WRITE, size=1, value=1)
        assert peer.log == []
    else:
        peer.access(protocol.WRITE, size=1, value=1)
        assert peer.log == [("output", len(text))]


def test_xsa_199_stop_tells_what_the_vmm_forwarded_and_not_what_came_back(peer: Peer) -> None:
    """The exit status follows from the value that the guest wrote. The Stop effect has a field that is no
    value; whatever the device puts there, or into the reply, counts for nothing or breaks the protocol.
    """
    peer.answer(protocol.WRITE, size=4, effects=EFFECT.pack(BY_CLASS[Stop].tag, 0, 0, 0, 0))
    peer.access(protocol.WRITE, size=4, value=0x1234)
    assert peer.log == [("stop", 0, 4, 0x1234)]


@pytest.mark.parametrize(("pin", "level", "argument"), [(0, 0, 1), (0, 0, 0xFFFF_FFFF), (1, 0, 0), (0, 1, 0)])
def test_xsa_199_stop_with_a_value_of_its_own_is_a_protocol_break(
    peer: Peer, pin: int, level: int, argument: int
) -> None:
    """A device process cannot choose the exit status of the run: there is no field for it."""
    effect = EFFECT.pack(BY_CLASS[Stop].tag, 0, pin, level, argument)
    peer.answer(protocol.WRITE, size=4, effects=effect)
    with pytest.raises(ProtocolError):
        peer.access(protocol.WRITE, size=4, value=7)
    assert peer.log == []


def test_xsa_199_stop_in_the_reply_to_a_read_is_a_protocol_break(peer: Peer) -> None:
    """Nor can it choose when: only a write of the guest to that very device stops the machine."""
    peer.answer(protocol.READ, size=4, effects=EFFECT.pack(BY_CLASS[Stop].tag, 0, 0, 0, 0))
    with pytest.raises(ProtocolError, match="not granted"):
        peer.access(protocol.READ, size=4, limit=0xFFFF_FFFF)
    assert peer.log == []


def test_xsa_199_request_with_a_device_that_is_not_there_is_refused_by_the_server() -> None:
    """The other direction: a server takes its own requests no more at their word than the VMM its replies."""
    from kvmbox.jail.server import DeviceServer

    server = DeviceServer()
    (hello,) = protocol.hello_requests([("post", {})])
    server.handle(hello.encode())
    request = protocol.Request(protocol.READ, 200, 1, 2, 0, 0, 0xFFFF_FFFF)
    with pytest.raises((protocol.FrameError, IndexError)):
        server.handle(request.encode())
