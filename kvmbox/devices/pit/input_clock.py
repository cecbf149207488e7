"""The CLK input of a PC's 8254: its models, the board and the bench reckon with it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CLK_HZ: Final = 1_193_182
"""That of all three counters: 14.31818 MHz / 12."""
