"""All ways to boot, in the order in which an image is offered to them (docs/adr/0029)."""

from __future__ import annotations

from typing import Final

from kvmbox.boot.plan import Way
from kvmbox.boot.way_bios import BootSector
from kvmbox.boot.way_elf import Elf
from kvmbox.boot.way_firmware import Firmware
from kvmbox.boot.way_linux import Linux
from kvmbox.boot.way_multiboot import Multiboot
from kvmbox.boot.way_multiboot2 import Multiboot2
from kvmbox.boot.way_pvh import Pvh
from kvmbox.boot.way_real import Real

WAYS: Final[tuple[Way, ...]] = (
    Firmware(),
    Pvh(),
    Multiboot(),
    Multiboot2(),
    Linux(),
    Elf(),
    BootSector(),
    Real(),
)
"""The first that makes an offer is taken."""
