"""The journal of a device process, and what it takes to let another process live through it again. Pure.

A journal is a list of requests and their replies in turn, each a frame, or the four words of a header where
the hot path had them at hand and no reason to pack them.

Replaying does not go request by request, which would cost a switch of processes each. As many of them as
fit travel in one REPLAY request; its reply carries the CRC-32 of all replies, and none of their effects:
those have been applied already. A request too long to travel so is sent by itself.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Any, Final

from kvmbox.lean import Value
from kvmbox.remote.protocol import MAX_PAYLOAD, WORDS

MAX_SNAPSHOT: Final = 1 << 20
"""How many bytes the snapshot of one device may have."""


class Batch(Value):
    """`frames` are requests, back to back; `checksum` is the CRC-32 of the replies that they had."""

    frames: bytes
    checksum: int
    count: int
    alone: bool = False
    """Whether it is one request that is to be sent as it is, and whose reply has that checksum."""


def as_frame(entry: Any) -> bytes:
    """An entry of a journal as the frame that it stands for."""
    return entry if isinstance(entry, bytes) else WORDS.pack(*entry)


def batches(journal: Sequence[Any]) -> Iterator[Batch]:
    """The journal in pieces that fit in a request each, in order."""
    frames: list[bytes] = []
    size = checksum = 0
    for request, reply in zip(journal[0::2], journal[1::2], strict=True):
        frame, answer = as_frame(request), as_frame(reply)
        if frames and (len(frame) > MAX_PAYLOAD or size + len(frame) > MAX_PAYLOAD):
            yield Batch(b"".join(frames), checksum, len(frames))
            frames, size, checksum = [], 0, 0
        if len(frame) > MAX_PAYLOAD:
            yield Batch(frame, binascii.crc32(answer), 1, alone=True)
            continue
        frames.append(frame)
        size += len(frame)
        checksum = binascii.crc32(answer, checksum)
    if frames:
        yield Batch(b"".join(frames), checksum, len(frames))
