"""The journal of a device process, and its batches for the replay in another process. Pure.

A journal has an entry for each answered request: the four words of its header (`protocol.WORDS`) and its
payload, and the same for its reply. The hot path already has these words and does not have to pack them.

A replay of single requests would cost two switches of processes for each. So one REPLAY request contains as
many requests as fit. Its reply contains the CRC-32 of all replies, but not their effects, which have been
applied before. A request that is too long for a batch is sent alone.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator, Sequence
from typing import Final

from kvmbox.lean import Value
from kvmbox.remote.transport import Words
from kvmbox.wire.protocol import HEADER, MAX_PAYLOAD, WORDS

MAX_SNAPSHOT: Final = 1 << 20
"""How many bytes the snapshot of one device may have."""


JOURNAL_LIMIT: Final = 1024
"""How many entries a journal gets. Bounds memory, and the time that a replay takes."""

JOURNAL_BYTES: Final = 1 << 20
"""The same for the payloads in it."""

Entry = tuple[Words, bytes, Words, bytes]
"""Header and payload of a request, header and payload of its reply."""


def entry_of(request: bytes, reply: bytes) -> Entry:
    """The entry of two frames."""
    return (
        WORDS.unpack_from(request),
        request[HEADER.size :],
        WORDS.unpack_from(reply),
        reply[HEADER.size :],
    )


class Journal(list[Entry]):
    """Requests that were answered, in order."""

    def __init__(self, limit: int = JOURNAL_LIMIT) -> None:
        super().__init__()
        self.limit = limit
        self._payload_bytes = 0

    def note(self, entry: Entry) -> None:
        """Add a request and its reply. (The hot path, which has no payloads, appends by itself.)"""
        self.append(entry)
        self._payload_bytes += len(entry[1]) + len(entry[3])

    @property
    def is_full(self) -> bool:
        """Whether the journal has reached its limit."""
        return len(self) >= self.limit or self._payload_bytes > JOURNAL_BYTES

    def clear(self) -> None:
        """Remove all entries."""
        super().clear()
        self._payload_bytes = 0


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
