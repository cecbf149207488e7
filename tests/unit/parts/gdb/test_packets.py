"""Packets of GDB's protocol: frames, checksums, escapes, and what is none."""

from __future__ import annotations

import pytest

from kvmbox.parts.gdb.packets import (
    PACKET_SIZE,
    Damaged,
    Event,
    Interrupt,
    Packet,
    Parser,
    SendAgain,
    TooLong,
    encode,
    room_for,
)


def parse(*pieces: bytes) -> list[Event]:
    parser = Parser()
    return [event for piece in pieces for event in parser.feed(piece)]


def test_packet_has_its_payload_and_checksum() -> None:
    assert encode(b"OK") == b"$OK#9a"
    assert parse(b"+$OK#9a") == [Packet(b"OK")]


def test_packet_in_pieces_is_one() -> None:
    assert parse(*(bytes((byte,)) for byte in b"$m0,4#fd$?#3F")) == [Packet(b"m0,4"), Packet(b"?")]


def test_several_packets_come_at_once() -> None:
    assert parse(b"x#00$OK#9a+$?#3f$m0") == [Packet(b"OK"), Packet(b"?")]


@pytest.mark.parametrize("payload", [b"", b"#$}*", bytes(range(256)), b"}}", b"}]]}", b"]"])
def test_every_byte_survives_escapes(payload: bytes) -> None:
    framed = encode(payload)
    assert framed.count(b"#") == framed.count(b"$") == 1
    assert parse(framed) == [Packet(payload)]


def test_escape_at_the_end_is_no_byte() -> None:
    assert parse(b"$a}#de") == [Packet(b"a")]


@pytest.mark.parametrize("frame", [b"$OK#9b", b"$OK#zz", b"$OK#+9", b"$OK# 9", b"$OK#\xff\xff"])
def test_wrong_checksum_is_damage(frame: bytes) -> None:
    assert parse(frame) == [Damaged()]


def test_packet_that_was_cut_off_is_replaced_by_the_next() -> None:
    assert parse(b"$m0,4$OK#9a") == [Packet(b"OK")]


def test_bytes_between_packets_are_requests_or_nothing() -> None:
    assert parse(b"\x03xyz-++\x00#") == [Interrupt(), SendAgain()]


def test_interrupt_within_a_packet_is_data() -> None:
    assert parse(encode(b"X0,1:\x03")) == [Packet(b"X0,1:\x03")]


def test_longest_packet_fits_and_a_longer_one_ends_it() -> None:
    longest = encode(b"a" * (PACKET_SIZE - 4))
    assert parse(longest) == [Packet(b"a" * (PACKET_SIZE - 4))]
    assert parse(encode(b"a" * (PACKET_SIZE - 3))) == [TooLong()]
    assert parse(b"$" + b"a" * PACKET_SIZE) == [TooLong()]
    assert parse(*[b"$" + b"a" * 1000, *[b"a" * 1000] * 20])[0] == TooLong()


def test_room_is_what_fits_whatever_the_bytes_are() -> None:
    assert len(encode(b"l" + b"#" * room_for(1))) <= PACKET_SIZE
