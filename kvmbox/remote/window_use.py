"""What a guest may do at the window of a device."""

from __future__ import annotations

from typing import Final

CLOSED: Final = 0
READS: Final = 1
WRITES: Final = 2
