"""Arbitrary replies: the channel accepts what is well-formed, refuses the rest by name, and never hangs."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmbox.channel.channel import Channel
from kvmbox.channel.grants import Grants
from kvmbox.devices.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.errors import DeviceProcessError
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_effects
from kvmbox.wire.protocol import NO_DEADLINE, request_word
from tests.support.links import socket_link

NOW = 1_000


@dataclass
class Applied:
    """What the channel did with effects."""

    log: list[tuple[object, ...]] = field(default_factory=list)

    def grants(self) -> list[Grants]:
        log = self.log
        return [
            Grants("a", irq_lines=[lambda level, coalesced: log.append(("irq", level, coalesced))]),
            Grants(
                "b",
                output=lambda data: log.append(("output", data)),
                input_room=lambda count: log.append(("room", count)),
                reset=lambda: log.append(("reset",)),
                stop=lambda *arguments: log.append(("stop", *arguments)),
            ),
        ]


@dataclass(frozen=True)
class Ask:
    """A request, and the largest value of a reply to it."""

    kind: int
    device: int
    size: int
    limit: int

    def send(self, channel: Channel) -> int:
        if self.kind in (protocol.READ, protocol.WRITE) and self.size:
            return channel.access(request_word(self.kind, self.device, self.size), 3, 0x55, self.limit)
        return channel.request(self.kind, device=self.device, limit=self.limit, offset=3, value=0x55)[0]


ASKS = st.sampled_from(
    [
        Ask(protocol.READ, 0, 1, 0xFF),
        Ask(protocol.READ, 1, 4, 0xFFFF_FFFF),
        Ask(protocol.WRITE, 1, 2, 0),
        Ask(protocol.WRITE, 0, 1, 0),
        Ask(protocol.ADVANCE, 0, 0, 0),
        Ask(protocol.RECEIVE, 1, 0, 5),
        Ask(protocol.SNAPSHOT, 1, 0, 100),
        Ask(protocol.HELLO, 0, 0, 0xFFFF_FFFF),
        Ask(protocol.RESTORE, 1, 0, 1),
    ]
)


def judge(ask: Ask, frame: bytes) -> tuple[int, list[tuple[object, ...]]] | None:
    """The definition: (value, what is applied) of a good reply, or None. Written apart from the channel."""
    if not 32 <= len(frame) <= 4096:
        return None
    kind, device, size, count, sequence, deadline, value, zero, length = struct.unpack_from("<4BI2Q2I", frame)
    body = frame[32:]
    if (kind, device, size, sequence, zero) != (ask.kind + 128, ask.device, ask.size, 1, 0):
        return None
    if length != len(body) or value > ask.limit:
        return None
    if ask.kind == protocol.ADVANCE and deadline <= NOW:
        return None
    if count and ask.kind in (protocol.HELLO, protocol.SNAPSHOT, protocol.RESTORE):
        return None
    applied: list[tuple[object, ...]] = []
    for _ in range(count):
        if len(body) < 8:
            return None
        tag, index, pin, level, argument = struct.unpack_from("<4BI", body)
        body = body[8:]
        match tag, index, pin, level:
            case 1, 0, 0, 1:
                applied.append(("irq", 1, argument))
            case 1, 0, 0, 0 if argument == 0:
                applied.append(("irq", 0, 0))
            case 2, 1, 0, 0 if argument <= len(body):
                applied.append(("output", body[:argument]))
                body = body[argument:]
            case 3, 1, 0, 0:
                applied.append(("room", argument))
            case 4, 1, 0, 0 if argument == 0 and (ask.kind, ask.device) == (protocol.WRITE, 1):
                applied.append(("reset",))
            case 5, 1, 0, 0 if argument == 0 and (ask.kind, ask.device) == (protocol.WRITE, 1):
                applied.append(("stop", 3, ask.size, 0x55))
            case _:
                return None
    if body and ask.kind != protocol.SNAPSHOT:
        return None
    return value, applied


EFFECTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.one_of(
            st.builds(IrqLine, st.integers(0, 1), st.integers(0, 1)),
            st.builds(HostOutput, st.binary(max_size=20)),
            st.builds(InputRoom, st.integers(0, 20)),
            st.just(Reset()),
            st.just(Stop()),
        ),
    ),
    max_size=4,
)


@st.composite
def replies(draw: st.DrawFn, ask: Ask) -> bytes:
    """A reply that is good, or has a few things wrong."""
    pairs: list[tuple[int, Effect]] = list(draw(EFFECTS))
    body = encode_effects(pairs) + draw(st.one_of(st.just(b""), st.binary(max_size=9)))
    fields = [
        ask.kind | protocol.REPLY,
        ask.device,
        ask.size,
        len(pairs),
        1,
        draw(st.sampled_from([NO_DEADLINE, NOW + 1, NOW, 0])),
        draw(st.sampled_from([0, ask.limit, ask.limit + 1])),
        0,
        len(body),
    ]
    if draw(st.booleans()):
        widths = (8, 8, 8, 8, 32, 64, 64, 32, 32)
        number = draw(st.integers(0, 8))
        fields[number] = draw(st.integers(0, (1 << widths[number]) - 1))
    frame = bytearray(struct.pack("<4BI2Q2I", *fields) + body)
    if draw(st.booleans()):
        frame[draw(st.integers(0, len(frame) - 1))] ^= 1 << draw(st.integers(0, 7))
    if draw(st.integers(0, 9)) == 0:
        del frame[draw(st.integers(0, len(frame))) :]
    return bytes(frame)


def run(ask: Ask, frame: bytes) -> None:
    vmm_end, device_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    applied = Applied()
    channel = Channel("fuzzed", socket_link(vmm_end.detach()), applied.grants(), now=lambda: NOW)
    try:
        device_end.send(frame)
        expected = judge(ask, frame)
        if expected is not None:
            assert ask.send(channel) == expected[0]
            assert applied.log == expected[1]
            assert channel.failure is None
            return
        with pytest.raises(DeviceProcessError) as caught:
            ask.send(channel)
        assert applied.log == []
        assert str(caught.value).startswith("device process 'fuzzed' ")
        assert str(caught.value).isprintable()
        assert channel.failure is caught.value
        assert channel.deadline == NO_DEADLINE
    finally:
        channel.close()
        device_end.close()


@given(ASKS, st.data())
def test_reply_is_accepted_exactly_when_it_is_well_formed(ask: Ask, data: st.DataObject) -> None:
    run(ask, data.draw(replies(ask)))


@given(ASKS, st.binary(max_size=200))
@example(Ask(protocol.READ, 0, 1, 0xFF), b"")
@example(Ask(protocol.ADVANCE, 0, 0, 0), bytes(4096))
@example(Ask(protocol.ADVANCE, 0, 0, 0), bytes(5000))
@example(Ask(protocol.ADVANCE, 0, 0, 0), b"\xff" * 32)
def test_reply_of_arbitrary_bytes_is_refused_by_name(ask: Ask, frame: bytes) -> None:
    run(ask, frame)


@given(st.binary(max_size=600))
def test_error_frame_of_arbitrary_text_is_one_printable_line(text: bytes) -> None:
    header = struct.pack("<4BI2Q2I", protocol.ERROR, 0, 0, 0, 1, NO_DEADLINE, 0, 0, len(text))
    run(Ask(protocol.READ, 0, 1, 0xFF), header + text)
