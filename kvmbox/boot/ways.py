"""All ways to boot, in the order in which an image is offered to them (docs/adr/booting.md).

The first that makes an offer is taken. Most images are taken early, so the modules of a way are imported when
its turn comes: a run does not pay for the ways behind its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from kvmbox.boot.plan import Way

NAMES: Final = ("firmware", "pvh", "multiboot", "multiboot2", "linux", "elf", "iso", "bios", "real")


def ways() -> Iterator[Way]:
    """The ways that `NAMES` names."""
    from kvmbox.boot.way_firmware import Firmware

    yield Firmware()
    from kvmbox.boot.way_pvh import Pvh

    yield Pvh()
    from kvmbox.boot.way_multiboot import Multiboot

    yield Multiboot()
    from kvmbox.boot.way_multiboot2 import Multiboot2

    yield Multiboot2()
    from kvmbox.boot.way_linux import Linux

    yield Linux()
    from kvmbox.boot.way_elf import Elf

    yield Elf()
    from kvmbox.boot.way_iso import Cd

    yield Cd()
    from kvmbox.boot.way_bios import BootSector

    yield BootSector()
    from kvmbox.boot.way_real import Real

    yield Real()
