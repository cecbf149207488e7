"""Arbitrary replies: the channel accepts what is well-formed, refuses the rest by name, and never hangs."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvmbox.base.errors import DeviceProcessError
from kvmbox.contract.model import Effect, HostOutput, InputRoom, IrqLine, Reset, Stop
from kvmbox.remote.transport.interface import Link
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_effects
from kvmbox.wire.protocol import NO_DEADLINE
from tests.support.far_end import FarEnd
from tests.support.halves import Half, built_halves
from tests.support.judge import ASKS, BROKEN, NOW, Ask, grants, judge, send
from tests.support.log import Calls

HALVES = built_halves()

EFFECTS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(
            st.builds(IrqLine, st.integers(0, 2), st.integers(0, 1)),
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
        draw(st.sampled_from([0, ask.limit, min(ask.limit + 1, (1 << 64) - 1)])),
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
    for half in HALVES:
        run_half(half, ask, frame)


def run_half(half: Half, ask: Ask, frame: bytes) -> None:
    far, log = FarEnd(), Calls()
    link = Link(half.socket, far.link.vmm, ())
    channel = half.channel("fuzzed", link, grants(log), now=lambda: NOW)
    try:
        far.socket.send(frame)
        expected = judge(ask, 1, frame)
        if not expected.error:
            assert send(channel, ask) == (expected.value, expected.payload)
            assert log == expected.log
            assert channel.failure is None
            return
        with pytest.raises(DeviceProcessError) as caught:
            send(channel, ask)
        assert log == []
        # A packet without a byte is no end.
        how = expected.error if frame else BROKEN
        assert str(caught.value).startswith(f"device process 'fuzzed' {how}")
        assert str(caught.value).isprintable()
        assert channel.failure is caught.value
        assert channel.deadline == NO_DEADLINE
    finally:
        channel.close()
        far.close()


@given(st.sampled_from(ASKS), st.data())
def test_reply_is_accepted_exactly_when_it_is_well_formed(ask: Ask, data: st.DataObject) -> None:
    run(ask, data.draw(replies(ask)))


@given(st.sampled_from(ASKS), st.binary(max_size=200))
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
