"""The batches of a journal, for the replay in another process. Pure.

A replay of single requests would cost two switches of processes for each. So one REPLAY request contains as
many requests as fit. Its reply contains the CRC-32 of all replies, but not their effects, which have been
applied before. A request that is too long for a batch is sent alone.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence

from kvmbox.base.value_classes import Value
from kvmbox.remote.channel.journal import Entry
from kvmbox.wire.protocol import MAX_PAYLOAD, WORDS


class Batch(Value):
    """`frames` are requests, back to back; `checksum` is the CRC-32 of the replies that they had."""

    frames: bytes
    checksum: int
    count: int
    alone: bool = False
    """Whether it is one request that is to be sent as it is, and whose reply has that checksum."""


def batches(journal: Sequence[Entry]) -> Iterator[Batch]:
    """The journal in pieces that fit in a request each, in order."""
    frames: list[bytes] = []
    size = checksum = 0
    for request_words, request_payload, reply_words, reply_payload in journal:
        frame = WORDS.pack(*request_words) + request_payload
        reply = WORDS.pack(*reply_words) + reply_payload
        if frames and size + len(frame) > MAX_PAYLOAD:
            yield Batch(b"".join(frames), checksum, len(frames))
            frames, size, checksum = [], 0, 0
        if len(frame) > MAX_PAYLOAD:
            yield Batch(frame, binascii.crc32(reply), 1, alone=True)
            continue
        frames.append(frame)
        size += len(frame)
        checksum = binascii.crc32(reply, checksum)
    if frames:
        yield Batch(b"".join(frames), checksum, len(frames))
