"""What an e1000 leaves to the host: checksums and segments, against sums that are made another way."""

from __future__ import annotations

import random
import struct

import pytest

from kvmbox.devices.e1000.model import (
    IS_IPV4,
    IS_TCP,
    LOOPED,
    MORE,
    OFFLOAD,
    SEGMENTS,
    SUM_IP,
    SUM_TCP,
    TAG_SIZE,
)
from kvmbox.parts.net.gathering import GatheringPort
from kvmbox.parts.net.offload import MOST_SEGMENTS, finished
from kvmbox.parts.net.port import MOST_WAITING
from tests.support.e1000_rig import NotingWire

ETHERNET = bytes(12) + b"\x08\x00"
SOURCE, TARGET = bytes((10, 0, 2, 1)), bytes((10, 0, 2, 2))
TCP, UDP = 6, 17


def ones_sum(data: bytes) -> int:
    """The sum of a checksum (RFC 1071), word by word: 0xffff over data that has its own."""
    total = 0
    for (word,) in struct.iter_unpack(">H", data + bytes(len(data) % 2)):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


def pseudo(protocol: int, length: int) -> bytes:
    return SOURCE + TARGET + struct.pack(">HH", protocol, length)


def packet(protocol: int, payload: bytes, *, length: int | None = None) -> bytes:
    """A frame as a driver gives it: the sum of the pseudo header where the checksum goes. For segments it has
    no length.
    """
    header = (
        struct.pack(">HHIIBBHHH", 5000, 80, 0xFFFF_FF00, 7, 0x50, 0x19, 1000, 0, 0)
        if protocol == TCP
        else struct.pack(">HHHH", 5000, 53, 0, 0)
    )
    body = len(header) + len(payload) if length is None else length
    partial = ones_sum(pseudo(protocol, body))
    place = 16 if protocol == TCP else 6
    header = header[:place] + struct.pack(">H", partial) + header[place + 2 :]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + body, 0xFFFE, 0x4000, 64, protocol, 0) + SOURCE + TARGET
    return ETHERNET + ip + header + payload


def wish(flags: int, protocol: int = TCP, *, header: int = 0, segment: int = 0, tag: int = 0) -> bytes:
    place = 34 + (16 if protocol == TCP else 6)
    return OFFLOAD.pack(flags, 14, 24, 33, 34, place, 0, header, segment, tag)


def check(frame: bytes, protocol: int) -> None:
    assert ones_sum(frame[14:34]) == 0xFFFF
    assert ones_sum(pseudo(protocol, len(frame) - 34) + frame[34:]) == 0xFFFF
    assert int.from_bytes(frame[16:18], "big") == len(frame) - 14


@pytest.mark.parametrize("protocol", [TCP, UDP])
@pytest.mark.parametrize("size", [0, 1, 2, 999, 1460])
def test_checksums_are_those_of_the_packet(protocol: int, size: int) -> None:
    payload = random.Random(size).randbytes(size)

    (frame,) = finished(packet(protocol, payload), wish(SUM_IP | SUM_TCP, protocol))
    check(frame, protocol)
    assert frame.endswith(payload)


def test_what_is_not_wanted_is_left_alone() -> None:
    frame = packet(TCP, b"x")

    assert finished(frame, wish(0)) == [frame]
    (found,) = finished(frame, wish(SUM_IP))
    assert found[34:] == frame[34:]


def test_sum_of_zero_is_sent_as_ones() -> None:
    frame = ETHERNET + b"\xff\xff" + bytes(44)

    (found,) = finished(frame, OFFLOAD.pack(SUM_TCP, 0, 0, 0, 14, 40, 0, 0, 0, 0))
    assert found[40:42] == b"\xff\xff"


@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_large_frame_is_sent_in_segments(protocol: int) -> None:
    payload = random.Random(1).randbytes(4001)
    flags = SUM_IP | SUM_TCP | SEGMENTS | IS_IPV4 | (IS_TCP if protocol == TCP else 0)
    header = 54 if protocol == TCP else 42
    large = packet(protocol, payload, length=0)

    frames = finished(large, wish(flags, protocol, header=header, segment=1000))
    assert [len(frame) - header for frame in frames] == [1000, 1000, 1000, 1000, 1]
    assert b"".join(frame[header:] for frame in frames) == payload
    for number, frame in enumerate(frames):
        check(frame, protocol)
        assert int.from_bytes(frame[18:20], "big") == (0xFFFE + number) & 0xFFFF
        if protocol == TCP:
            assert int.from_bytes(frame[38:42], "big") == (0xFFFF_FF00 + 1000 * number) & 0xFFFF_FFFF
            assert frame[47] == (0x19 if number == 4 else 0x10)
        else:
            assert int.from_bytes(frame[38:40], "big") == len(frame) - 34


def test_segments_of_ipv6_have_their_payload_length() -> None:
    ip = struct.pack(">IHBB", 6 << 28, 0, UDP, 64) + bytes(32)
    large = bytes(12) + b"\x86\xdd" + ip + struct.pack(">HHHH", 1, 2, 0, 0) + bytes(150)

    frames = finished(large, OFFLOAD.pack(SUM_TCP | SEGMENTS, 14, 0, 0, 54, 60, 0, 62, 100, 0))
    assert [int.from_bytes(frame[18:20], "big") for frame in frames] == [108, 58]


def test_tag_is_behind_the_addresses_of_each_segment_and_in_no_checksum() -> None:
    flags = SUM_IP | SUM_TCP | SEGMENTS | IS_IPV4 | IS_TCP
    large = packet(TCP, bytes(1500), length=0)

    frames = finished(large, wish(flags, header=54, segment=1000, tag=0x8100_6123))
    assert [frame[12:16] for frame in frames] == [bytes.fromhex("81006123")] * 2
    for frame in frames:
        check(frame[:12] + frame[16:], TCP)


def test_too_many_segments_are_none() -> None:
    frame = packet(TCP, bytes(MOST_SEGMENTS + 1))

    assert finished(frame, wish(SEGMENTS, header=54, segment=1)) == []
    assert finished(frame, wish(SEGMENTS, header=54)) == []


def test_any_wish_leaves_the_length_of_a_frame_alone() -> None:
    dice = random.Random(2)
    for _ in range(3000):
        frame = dice.randbytes(dice.randrange(100))
        asked = dice.randbytes(OFFLOAD.size)
        frames = finished(frame, asked)
        *_, header, segment, tag = OFFLOAD.unpack(asked)
        more = TAG_SIZE if tag else 0
        assert all(len(one) <= max(len(frame), header + segment) + more for one in frames)
        if not asked[0] & SEGMENTS:
            assert len(frames[0]) == len(frame) + more


class Port(GatheringPort):
    """Remembers what was sent."""

    def __init__(self) -> None:
        super().__init__("net0")
        self.wire = wire = NotingWire()
        self.sent = wire.sent


def test_pieces_are_put_together() -> None:
    port = Port()

    port.write(MORE, b"a" * 20)
    port.write(20 | MORE, b"b" * 20)
    port.write(40, b"c")
    port.write(0, b"d" * 60)
    assert port.sent == [b"a" * 20 + b"b" * 20 + b"c", b"d" * 60]


def test_piece_at_another_place_loses_its_frame_and_no_other_one() -> None:
    port = Port()

    port.write(20, b"c" * 60)
    port.write(MORE, b"a" * 20)
    port.write(30, b"c" * 60)
    port.write(0, b"d" * 60)
    assert port.sent == [b"d" * 60]


def test_wish_is_for_one_frame() -> None:
    port, frame = Port(), packet(TCP, b"x")

    port.hear(wish(SUM_IP | SUM_TCP))
    port.write(0, frame)
    port.write(0, frame)
    check(port.sent[0], TCP)
    assert port.sent[1] == frame


def test_looped_frame_waits_to_be_received_as_long_as_there_is_room() -> None:
    port, frame = Port(), packet(TCP, b"x")
    woken: list[None] = []
    port.wake = lambda: woken.append(None)

    for _ in range(MOST_WAITING + 1):
        port.hear(wish(LOOPED))
        port.write(0, frame)
    assert (port.sent, list(port.incoming)) == ([], [frame] * MOST_WAITING)
    assert port.facts()["lost_received"] == 1
    assert woken
    port.write(0, frame)
    assert port.sent == [frame]


@pytest.mark.parametrize("bad", [b"x", wish(SEGMENTS) + b"x"])
def test_wish_that_is_none_loses_its_frame(bad: bytes) -> None:
    port = Port()

    port.hear(bad)
    port.write(0, packet(TCP, b"x"))
    assert port.sent == []


def test_what_is_no_frame_is_not_sent() -> None:
    port = Port()

    port.write(0, bytes(13))
    port.write(0, bytes(16381))
    place = 0
    for _ in range(40):
        port.write(place | MORE, bytes(4096))
        place += 4096
    port.write(place, bytes(60))
    assert port.sent == []
