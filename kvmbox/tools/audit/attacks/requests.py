"""After the VMM, by the only way that is left open: the channel. Frames without end, a shared page that
changes while it is being read, and effects that the device was not granted.
"""

from __future__ import annotations

import os

from kvmbox.tools.audit.attacks.syscalls import read_some, write_all
from kvmbox.wire import page_layout as layout
from kvmbox.wire import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from typing import Final

FLOOD: Final = 2000
"""How many frames the flood has: 8 MB, most of which nobody must ever take."""

GOOD: Final = 0x42
"""A value that a one-byte read may give."""

BAD: Final = 0xBAD0_BAD0_BAD0
"""One that it may not."""

REPLY_VALUE_WORD: Final = layout.REPLY_WORD + 2


class Ends:
    """The device process's ends of its channel; the payload sets them before the attack."""

    replies = -1
    page: mmap.mmap | None = None


def flood(_given: dict[str, str]) -> bytes:
    """A good reply to the first request, before it is made, and again, and again."""
    frame = protocol.HEADER.pack(
        protocol.READ | protocol.REPLY, 0, 1, 0, 1, protocol.NO_DEADLINE, GOOD, 0, protocol.MAX_PAYLOAD
    )
    reply = protocol.HEADER.pack(protocol.READ | protocol.REPLY, 0, 1, 0, 1, protocol.NO_DEADLINE, GOOD, 0, 0)
    write_all(Ends.replies, reply)
    stuffing = frame + bytes(protocol.MAX_PAYLOAD)
    for _ in range(FLOOD):
        write_all(Ends.replies, stuffing)
    return b"all"


def rewrite_page(_given: dict[str, str]) -> bytes:
    """Answer each request well, and never stop putting another value in the place of the good one."""
    assert Ends.page is not None
    words = memoryview(Ends.page).cast("Q")
    seen = 0
    while True:  # until audit has seen enough, and kills
        request = words[layout.REQUEST_WORD]
        if request != seen:
            seen = request
            words[layout.REPLY_WORD + 1] = protocol.NO_DEADLINE
            words[REPLY_VALUE_WORD] = GOOD
            words[layout.REPLY_WORD + 3] = 0
            words[layout.REPLY_WORD] = request | protocol.REPLY
            os.write(Ends.replies, layout.DOORBELL)
        words[REPLY_VALUE_WORD] = BAD
        words[REPLY_VALUE_WORD] = GOOD


def forge(given: dict[str, str]) -> bytes:
    """Answer one request after the other with the effects that were given, and then with none."""
    channel = int(given["channel"].split(",")[0])
    forged = [bytes.fromhex(part) for part in given["replies"].split(",")]
    while frame := read_some(channel, protocol.MAX_FRAME):
        request = protocol.decode_request(frame)
        count, *effects = forged.pop(0) if forged else b"\0"
        header = protocol.HEADER.pack(
            request.kind | protocol.REPLY,
            request.device,
            request.size,
            count,
            request.sequence,
            protocol.NO_DEADLINE,
            0,
            0,
            len(effects),
        )
        write_all(Ends.replies, header + bytes(effects))
    return b"all"
