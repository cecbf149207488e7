"""The fixed descriptor numbers of a device process, so that the filter is the same for all of them.

While it serves, CHANNEL_FD is open and nothing else. The others exist while it is being jailed: see
`jail` for who uses them and who closes them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

LISTENER_FD: Final = 0
"""The seccomp listener: the kernel gives it the lowest free number, and 0, 1 and 2 are closed by then."""

CHANNEL_FD: Final = 3
"""The channel to the VMM. Until the messenger swaps it in, the device's end of the sync socket is here:
the filter lets the device write to number 3 only."""

PARKED_CHANNEL_FD: Final = 4
"""Where the channel waits meanwhile."""

REPORT_FD: Final = 5
"""To the spawner: READY with the listener, or FAILED with the reason."""

SYNC_FD: Final = 6
"""The messenger's end of the sync socket."""

DEVICE_PIDFD: Final = 7
"""The device process itself, for the messenger."""

FIRST_UNUSED_FD: Final = 8
