"""The journal of a device process, for the replay in another process (`parts.restart.replay_batches`). Pure.

A journal has an entry for each answered request: the four words of its header (`protocol.WORDS`) and its
payload, and the same for its reply. The hot path already has these words and does not have to pack them.
"""

from __future__ import annotations

from typing import Final

from kvmbox.remote.transport.interface import Words
from kvmbox.wire.protocol import HEADER, WORDS

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
