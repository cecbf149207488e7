"""The journal of a device process, cut into requests that another one can be sent."""

from __future__ import annotations

import binascii

import pytest

from kvmbox.jail.server import DeviceServer
from kvmbox.parts.restart.replay_batches import Batch, batches
from kvmbox.remote.channel.journal import JOURNAL_BYTES, Entry, entry_of
from kvmbox.wire import protocol
from kvmbox.wire.effects import encode_reply
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, Request
from tests.support.halves import Half

FIT = MAX_PAYLOAD // HEADER.size


def read(number: int, payload: bytes = b"") -> bytes:
    return Request(protocol.READ, 0, 1, number, number * 10, 0, 5, payload).encode()


def reply(number: int) -> bytes:
    return encode_reply(Request(protocol.READ, 0, 1, number), None, number & 0xFF, [])


def journal(count: int) -> list[Entry]:
    return [entry_of(read(number), reply(number)) for number in range(1, count + 1)]


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
    assert b"".join(batch.frames for batch in cut) == b"".join(read(number) for number in range(1, count + 1))


def test_entry_of_a_header_alone_is_what_the_hot_path_has_at_hand() -> None:
    request, answer = read(1), reply(1)
    words = protocol.WORDS.unpack(request), b"", protocol.WORDS.unpack(answer), b""
    assert entry_of(request, answer) == words
    assert next(batches([words])).frames == request


def test_journal_is_full_by_its_entries_or_by_their_payloads_until_it_is_cleared(half: Half) -> None:
    few = half.journal(limit=2)
    few.note(entry_of(read(1), reply(1)))
    assert not few.is_full
    few.note(entry_of(read(2), reply(2)))
    assert few.is_full
    few.clear()
    assert not few.is_full
    long = half.journal()
    for _ in range(JOURNAL_BYTES // MAX_PAYLOAD):
        long.note(entry_of(read(1, bytes(MAX_PAYLOAD)), reply(1)))
    assert not long.is_full
    for _ in range(2):
        long.note(entry_of(read(1), reply(1) + bytes(MAX_PAYLOAD)))
    assert long.is_full
    long.clear()
    assert not long.is_full


def test_journal_keeps_the_order_of_entries_with_and_without_payloads(half: Half) -> None:
    kept = half.journal(limit=4)
    entries = [entry_of(read(number, bytes(number % 3)), reply(number)) for number in range(1, 12)]
    for number, entry in enumerate(entries, 1):
        if entry[1]:
            kept.note(entry)
        else:
            kept.append(entry)
        assert len(kept) == number  # it grows beyond its limit, if nobody clears it
        if number == 7:
            assert list(kept) == entries[:7]
    assert list(kept) == entries
    kept.clear()
    assert (len(kept), list(kept)) == (0, [])


def test_batches_a_payload_that_just_fits_is_no_exception() -> None:
    widest = read(1, bytes(MAX_PAYLOAD - HEADER.size))
    assert list(batches([entry_of(widest, reply(1))])) == [Batch(widest, binascii.crc32(reply(1)), 1)]


@pytest.mark.parametrize("size", [MAX_PAYLOAD - HEADER.size + 1, MAX_PAYLOAD])
def test_batches_a_frame_too_long_for_a_payload_goes_alone_and_in_its_place(size: int) -> None:
    long = read(2, bytes(size))
    entries = [
        entry_of(read(1), reply(1)),
        entry_of(long, reply(2)),
        entry_of(read(3), reply(3)),
    ]
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
    (hello,) = protocol.hello_requests([("uart_16550a", {})])
    entries: list[Entry] = []
    lengths = set()
    for server in (lived, again):
        server.handle(hello.encode())
    for number in range(1, 200):
        kind = protocol.WRITE if number % 3 else protocol.READ
        request = Request(kind, 0, 1, number, 1000 * number, number & 0xFF, number % 8).encode()
        if kind == protocol.READ:
            request = Request(kind, 0, 1, number, 1000 * number, 0, number % 8).encode()
        answer = lived.handle(request)
        entries.append(entry_of(request, answer))
        lengths.add(len(answer))
    assert len(lengths) > 1  # some had effects
    for batch in batches(entries):
        replay = Request(protocol.REPLAY, 0, 0, 7, 0, 0, 0, batch.frames)
        answer = again.handle(replay.encode())
        assert HEADER.unpack_from(answer)[6] == batch.checksum
        assert len(answer) == HEADER.size  # no effects: they have been applied
    probe = Request(protocol.SNAPSHOT, 0, 0, 9).encode()
    assert again.handle(probe) == lived.handle(probe)
