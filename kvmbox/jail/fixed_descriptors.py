"""The fixed descriptor numbers of a device process, so that the filter is the same for all of them; and one
of the spawner.

While it serves, CHANNEL_FD is open, REPLY_FD too where the channel is a pair of pipes, and nothing else.
The others exist while it is being jailed: see `jail` for who uses them and who closes them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LISTENER_FD: Final = 0
"""The seccomp listener: the kernel gives it the lowest free number, and 0, 1 and 2 are closed by then."""

CHANNEL_FD: Final = 3
"""The channel to the VMM, or the end of it that requests are read from."""

REPLY_FD: Final = 4
"""The end that replies are written to, where that is not CHANNEL_FD: a pair of pipes."""

REPORT_FD: Final = 5
"""To the spawner: READY with the listener, or FAILED with the reason."""

FIRST_UNUSED_FD: Final = 6

CONTROL_FD: Final = 3
"""The control socket of the spawner, and of the template of warm boots: all they get, but for /dev/null."""

MAP_FD: Final = 4
"""Where a spawner that was cloned asks for its map of ids, until it is confined."""
