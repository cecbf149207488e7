"""Whatever a client of GDB's protocol sends: no exception, no growth, nothing but text for the person."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvmbox.parts.gdb import packets
from kvmbox.parts.gdb.gdb_session import MOST_UNSENT, SIGTRAP, Session, Stop
from tests.support.fake_target import FakeTarget

COMMANDS = (
    *(b"?", b"g", b"G", b"p", b"P", b"m", b"M", b"X", b"c", b"C", b"s", b"S", b"Hg", b"Hc", b"T", b"Z", b"z"),
    *(b"qSupported:", b"QStartNoAckMode", b"qXfer:features:read:target.xml:", b"qThreadExtraInfo,", b"qC"),
    *(b"vCont;", b"Qqemu.PhyMemMode:", b"qRcmd,", b"D", b"k", b"vKill"),
)
ARGUMENTS = st.lists(
    st.sampled_from((b"0", b"1", b",", b";", b":", b"=", b"-1", b"c", b"s", b"ffff", b"f" * 16, b"7c00"))
    | st.binary(max_size=4),
    max_size=9,
).map(b"".join)
PACKETS = st.tuples(st.sampled_from(COMMANDS), ARGUMENTS).map(lambda pair: packets.encode(b"".join(pair)))
STREAMS = st.lists(
    PACKETS | st.binary(max_size=40) | st.sampled_from((b"\x03", b"+", b"-", b"$", b"#")), max_size=30
)


@given(st.lists(st.binary(max_size=60), max_size=10))
def test_parser_gives_the_same_events_however_bytes_are_cut(pieces: list[bytes]) -> None:
    parser = packets.Parser()
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert events == packets.Parser().feed(b"".join(pieces))


@given(st.binary(max_size=2000))
def test_payload_comes_back(payload: bytes) -> None:
    assert packets.Parser().feed(packets.encode(payload)) == [packets.Packet(payload)]


@given(STREAMS, st.sets(st.integers(0, 29)))
def test_session_answers_whatever_comes(stream: list[bytes], stops: set[int]) -> None:
    target = FakeTarget()
    session = Session(target)
    session.stopped(Stop(0, SIGTRAP))
    for index, data in enumerate(stream):
        out = session.receive(data)
        if index in stops:
            out += session.stopped(Stop(1, SIGTRAP, "watch", 0x1000))
        assert len(out) <= MOST_UNSENT + packets.PACKET_SIZE
        for event in packets.Parser().feed(out):
            assert isinstance(event, packets.Packet | packets.SendAgain)
    session.ended(1)
    assert all(text.isprintable() for text in target.said)
    assert session.closed is None or session.closed.isprintable()
