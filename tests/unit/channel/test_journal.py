"""The journal of a device process, cut into requests that another one can be sent."""

from __future__ import annotations

import binascii
from typing import Any

import pytest

from kvmbox.channel.journal import Batch, as_frames, batches
from kvmbox.jailed.server import DeviceServer
from kvmbox.wire import protocol
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, Request

FIT = MAX_PAYLOAD // HEADER.size


def read(number: int, payload: bytes = b"") -> bytes:
    return Request(protocol.READ, 0, 1, number, number * 10, 0, 5, payload).encode()


def reply(number: int) -> bytes:
    return protocol.encode_reply(Request(protocol.READ, 0, 1, number), None, number & 0xFF, [])


def journal(count: int) -> list[Any]:
    return [(read(number), reply(number)) for number in range(1, count + 1)]


def test_batches_of_nothing_is_nothing() -> None:
    assert list(batches([])) == []


def test_batches_few_requests_travel_together_with_the_checksum_of_their_replies() -> None:
    (batch,) = batches(journal(3))
    assert batch.frames == read(1) + read(2) + read(3)
    assert batch.checksum == binascii.crc32(reply(1) + reply(2) + reply(3))
    assert (batch.count, batch.alone) == (3, False)


@pytest.mark.parametrize(
    ("count", "sizes"),
    [(FIT, [FIT]), (FIT + 1, [FIT, 1]), (2 * FIT, [FIT, FIT]), (2048, [FIT] * (2048 // FIT) + [2048 % FIT])],
)
def test_batches_are_as_full_as_a_payload_lets_them(count: int, sizes: list[int]) -> None:
    entries = journal(count)
    cut = list(batches(entries))
    assert [batch.count for batch in cut] == sizes
    assert all(len(batch.frames) <= MAX_PAYLOAD for batch in cut)
    assert b"".join(batch.frames for batch in cut) == b"".join(request for request, _ in entries)


def test_batches_words_stand_for_the_frames_that_they_are() -> None:
    words = []
    for request, answer in journal(5):
        _, deadline, value, _ = protocol.WORDS.unpack(answer)
        words.append((*protocol.WORDS.unpack(request), deadline, value))
    assert list(batches(words)) == list(batches(journal(5)))
    assert list(batches([*words, *journal(5)])) == list(batches(journal(5) * 2))
    assert as_frames(words[0]) == as_frames((read(1), reply(1))) == (read(1), reply(1))


def test_batches_a_payload_that_just_fits_is_no_exception() -> None:
    widest = read(1, bytes(MAX_PAYLOAD - HEADER.size))
    assert list(batches([(widest, reply(1))])) == [Batch(widest, binascii.crc32(reply(1)), 1)]


@pytest.mark.parametrize("size", [MAX_PAYLOAD - HEADER.size + 1, MAX_PAYLOAD])
def test_batches_a_frame_too_long_for_a_payload_goes_alone_and_in_its_place(size: int) -> None:
    long = read(2, bytes(size))
    entries = [(read(1), reply(1)), (long, reply(2)), (read(3), reply(3))]
    assert list(batches(entries)) == [
        Batch(read(1), binascii.crc32(reply(1)), 1),
        Batch(long, binascii.crc32(reply(2)), 1, alone=True),
        Batch(read(3), binascii.crc32(reply(3)), 1),
    ]


def test_batches_checksum_starts_anew_with_each_batch() -> None:
    first, second = batches(journal(FIT + 1))
    assert first.checksum == binascii.crc32(b"".join(reply(number) for number in range(1, FIT + 1)))
    assert second.checksum == binascii.crc32(reply(FIT + 1))


def test_replay_by_the_real_server_gives_the_checksum_of_the_batch() -> None:
    # What the journal computes from the replies of one server is what another one answers to the batch.
    lived, again = DeviceServer(), DeviceServer()
    hello = Request(protocol.HELLO, 0, 0, 1, 0, protocol.VERSION, 0, b"uart_16550a").encode()
    entries: list[tuple[bytes, bytes]] = []
    for server in (lived, again):
        server.handle(hello)
    for number in range(1, 200):
        kind = protocol.WRITE if number % 3 else protocol.READ
        request = Request(kind, 0, 1, number, 1000 * number, number & 0xFF, number % 8).encode()
        if kind == protocol.READ:
            request = Request(kind, 0, 1, number, 1000 * number, 0, number % 8).encode()
        entries.append((request, lived.handle(request)))
    assert len({len(answer) for _, answer in entries}) > 1  # some had effects
    for batch in batches(entries):
        replay = Request(protocol.REPLAY, 0, 0, 7, 0, 0, 0, batch.frames)
        answer = again.handle(replay.encode())
        assert HEADER.unpack_from(answer)[6] == batch.checksum
        assert len(answer) == HEADER.size  # no effects: they have been applied
    probe = Request(protocol.SNAPSHOT, 0, 0, 9).encode()
    assert again.handle(probe) == lived.handle(probe)
