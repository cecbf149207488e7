"""The way of firmware: a ROM image, entered at the reset vector of the processor.

The image ends at 4 GiB, where it can be read only. Its last 256 KiB, or all of it, are also below 1 MiB, in
RAM: a copy that firmware may write to, as PCs have it once their shadow RAM is on. The processor starts at
F000:FFF0 with a code segment base of 0xFFFF0000 (Intel SDM volume 3, 10.1.4).

An image is recognised by its size and by the jump at its reset vector.
"""

from __future__ import annotations

import re
from typing import Final

from kvmbox.base import layout
from kvmbox.boot.bios.way import refuse_options
from kvmbox.boot.disk.boot_marks import BOOT_SIGNATURE, CD_VOLUME, disk_mark
from kvmbox.boot.elf.headers import ELF_MAGIC
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.real_mode.entry_registers import reset_state

_GRANULE: Final = 64 * layout.KIB
_RESET_VECTOR: Final = 16  # bytes before the end
_RESET_BASE: Final = 0xFFFF_0000

# What stands at a reset vector: interrupts, directions and caches put in order, perhaps, and then a jump.
_RESET_CODE: Final = re.compile(rb"(?:\x90|\xfa|\xfc|\x0f\x09|\x66)*[\xe9\xea\xeb]")


class Firmware:
    """See the module."""

    name: str = "firmware"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        refused = _wrong_size(image)
        if refused is not None:
            return refused
        if image.data.startswith(ELF_MAGIC):
            return Refusal("it is an ELF file")
        if _RESET_CODE.match(image.data[-_RESET_VECTOR:]) is None:
            return Refusal("there is no jump at its reset vector, 16 bytes before its end")
        mark = disk_mark(image.data)
        return Offer("a firmware image", f"it has a {mark}" if mark in (BOOT_SIGNATURE, CD_VOLUME) else "")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        refused = _wrong_size(image)
        if refused is not None:
            raise image.error(f"it is no firmware image: {refused.reason}", hint=refused.hint or None)
        refuse_options(context, "firmware")
        data = image.data
        low = data[-layout.LOW_FIRMWARE :]
        return BootPlan(
            self.name,
            reset_state(_RESET_BASE),
            layout.MMIO_HOLE_END - _RESET_VECTOR,
            writes=((layout.HIGH_MEMORY_START - len(low), low),),
            has_firmware=False,
            rom=(layout.MMIO_HOLE_END - len(data), data),
        )


def _wrong_size(image: GuestImage) -> Refusal | None:
    size = len(image.data)
    if size and size % _GRANULE == 0 and size <= layout.MAX_FIRMWARE:
        return None
    return Refusal(
        f"its {size} bytes are not a multiple of 64 KiB up to {layout.MAX_FIRMWARE // layout.MIB} MiB",
        hint="name the ROM image itself, such as /usr/share/seabios/bios.bin",
    )
