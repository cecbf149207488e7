"""Why no input takes some outcomes: patterns of their names (`branches.Outcome.name`), and the reason.

A pattern that fits no outcome any more fails a test.
"""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "parameters, grants and tables come from the board, and are right": (
        *("devices/*.__init__: *", "devices/ide_channel.py _make_drive: *"),
        *("devices/pci_host.py _Function._capability: *", "remote/grants.py bind: *"),
        *("remote/media.py media_of: *", "remote/media.py Media.check: if to_guest & RISES*"),
        *("remote/medium.py medium_store: *", "wire/protocol.py encode_board: if isinstance*"),
        "run/coalescing.py CoalescedRing.__init__: or lock*",
    ),
    "a number wraps after 2^32 requests or handles": (
        *("*_sequence + 1 *", "*_asked + 1 *", "remote/queues.py DeviceQueues._name: *"),
    ),
    "another target gets there (lives, losses, recordings, effects)": (
        *("remote/channel.py *self._record*", "remote/channel.py *journal*", "remote/channel.py *survival*"),
        *("remote/channel.py *self._left*", "remote/channel.py *BLOCKS*", "remote/channel.py *READ_WIDE*"),
        *("remote/channel.py *self._rises*", "remote/channel.py *MAX_FOLLOW_UPS*"),
        *("remote/channel.py *CAN_WAIT*", "remote/channel.py Channel._accept: *value <= limit*"),
    ),
    "waits for another thread, which a fuzzer does not have": (
        *("remote/channel.py *slices is None*", "remote/shared.py *slept*", "*Recovery.overdue: *"),
        "host/disk_mapped.py MappedFile._place_of: if not self._dialogue*",
    ),
    "checked before, and once more where it is used": ("remote/ring.py Ring.__init__: *",),
    "a socket that has ended is readable at once, and fails once": (
        "remote/stream.py StreamTransport._last_words: *",
    ),
    "errors of the host's files, which are in memory here": (
        *("*: except OSError", "*error.strerror*", "*error.errno*"),
        "parts/snapshot/ram.py _check_zeros: or not data",
    ),
    "other versions of Python": ("boot/compressed.py _zstd: *", "boot/compressed.py _unpack: except *"),
}
"""By the reason: patterns, as of the shell."""
