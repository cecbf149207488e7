"""Why no input takes some outcomes: patterns of their names (`branches.Outcome.name`), and the reason."""

from __future__ import annotations

from typing import Final

REASONS: Final[dict[str, tuple[str, ...]]] = {
    "parameters of a model come from the board, and are right": (
        *("devices/*.__init__: *", "devices/ide_channel.py _make_drive: *"),
        "devices/pci_host.py _Function._capability: *",
    ),
    "recordings and crash survival have targets of their own (lives, recordings)": (
        *("remote/channel.py *self._record*", "remote/channel.py *journal*", "remote/channel.py *survival*"),
    ),
    "the sequence number wraps after 2^32 requests": ("*_sequence + 1 *", "*_asked + 1 *"),
    "waits for another thread, which a fuzzer does not have": (
        *("remote/channel.py *slices is None*", "remote/shared.py *slept*", "*Recovery.overdue: *"),
    ),
}
"""By the reason: patterns, as of the shell."""
