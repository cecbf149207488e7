"""Where the registers of a virtio device over PCI are in its model, and what a legacy driver says of a queue.

See `pci`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

CONFIG: Final = 0x100  # as over MMIO
COMMON: Final = 0x400
ISR: Final = 0x480
NOTIFY: Final = 0x500
LEGACY: Final = 0x600
TABLE: Final = 0x800
PBA: Final = 0xC00

COMMON_SIZE: Final = 0x38
NOTIFY_STEP: Final = 4
LEGACY_SIZE: Final = 0x14
LEGACY_SIZE_MSIX: Final = 0x18

PAGE: Final = 4096


def legacy_areas(page: int, size: int) -> tuple[int, int, int]:
    """Where descriptors, available ring and used ring of a queue at a page are (2.7.2)."""
    descriptors = page * PAGE
    available = descriptors + 16 * size
    used = (available + 2 * (3 + size) + PAGE - 1) // PAGE * PAGE
    return descriptors, available, used
