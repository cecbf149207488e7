"""The way of boot sectors: the built-in BIOS starts, and boots from the image, which is its disk.

An image is recognised by the signature 55 AA at its byte 510. The BIOS loads the first sector to 0000:7C00
and enters it there; the guest reads the rest of the image with int 0x13.
"""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.boot.disk.boot_marks import BOOT_SIGNATURE, disk_mark
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.real_mode.entry_registers import reset_state
from kvmbox.firmware.builtin_bios import drives, rom_with
from kvmbox.firmware.memory_map import memory_map


class BootSector:
    """See the module."""

    name: str = "bios"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        if disk_mark(image.data) != BOOT_SIGNATURE:
            return Refusal(f"it has no {BOOT_SIGNATURE}")
        return Offer("a boot sector")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        found = self.examine(image)
        if isinstance(found, Refusal):
            raise image.error(
                found.reason, hint="no BIOS boots such an image; --boot real enters any flat 16-bit image"
            )
        refuse_options(context, "a boot sector")
        if not context.bios_rom:  # nothing will run: see BootContext
            return BootPlan(self.name, reset_state(layout.FIRMWARE_START), layout.BOOT_SECTOR)
        rom = rom_with(context.bios_rom, memory_map(context.memory.size), drives(image.size, context.further))
        return BootPlan(
            self.name,
            reset_state(layout.FIRMWARE_START),
            layout.BOOT_SECTOR,
            writes=((layout.BIOS_ROM, rom),),
        )


def refuse_options(context: BootContext, what: str) -> None:
    """UsageError if the user passes something that `what` cannot be told of."""
    if context.all_modules:
        raise UsageError(f"--module and --initrd have no meaning for {what}", hint="modules are for kernels")
    if context.command_line is not None:
        raise UsageError(f"--append has no meaning for {what}", hint="a command line is for kernels")
