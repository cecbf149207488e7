"""The journal of a device process, and what it takes to let another process live through it again. Pure.

A journal has an entry for each request that was answered: its frame and its reply's; or six words, where the
hot path had them at hand and no reason to pack them: the four of the request's header, and deadline and
value of a reply without effects, which has nothing else to say.

Replaying does not go request by request, which would cost a switch of processes each. As many of them as
fit travel in one REPLAY request; its reply carries the CRC-32 of all replies, and none of their effects:
those have been applied already. A request too long to travel so is sent by itself.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kvmbox.lean import Value
from kvmbox.wire.protocol import MAX_PAYLOAD, REPLY, WORDS

MAX_SNAPSHOT: Final = 1 << 20
"""How many bytes the snapshot of one device may have."""


class Batch(Value):
    """`frames` are requests, back to back; `checksum` is the CRC-32 of the replies that they had."""

    frames: bytes
    checksum: int
    count: int
    alone: bool = False
    """Whether it is one request that is to be sent as it is, and whose reply has that checksum."""


def as_frames(entry: Any) -> tuple[bytes, bytes]:
    """The request and the reply that an entry stands for."""
    if len(entry) == 2:
        request, reply = entry
        return request, reply
    first, now, value, place, deadline, result = entry
    return WORDS.pack(first, now, value, place), WORDS.pack(first | REPLY, deadline, result, 0)


def batches(journal: Sequence[Any]) -> Iterator[Batch]:
    """The journal in pieces that fit in a request each, in order."""
    frames: list[bytes] = []
    size = checksum = 0
    for entry in journal:
        frame, reply = as_frames(entry)
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
