"""The way of CDs: the built-in BIOS starts, and boots what the boot catalog of the image names (El Torito).

An image is recognised by its volume descriptors (`boot.disk.cd_image`). One that also has a boot sector, for
when it is written to a disk, is a CD all the same, unless --boot bios asks for the disk. The guest reads the
image with int 0x13.
"""

from __future__ import annotations

from typing import Final

from kvmbox.base import layout
from kvmbox.base.errors import UsageError
from kvmbox.boot.bios.way import refuse_options
from kvmbox.boot.disk.boot_marks import BOOT_SIGNATURE, disk_mark, is_cd
from kvmbox.boot.disk.cd_image import CD_SECTOR, HARD_DISK, MEDIA, BootEntry, Iso, read_iso
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import NO_BIOS, BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.real_mode.entry_registers import reset_state
from kvmbox.firmware.builtin_bios import NO_DRIVE, CdBoot, Geometry, cd_drives, hard_disk, rom_with
from kvmbox.firmware.memory_map import memory_map

_KIND: Final = "a CD image"
_PARTITION_END: Final = 446 + 5  # in an MBR: head, sector and cylinder where the first partition ends


class Cd:
    """See the module."""

    name: str = "iso"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        found = _read(image)
        if isinstance(found, Refusal):
            return found
        return Offer(f"{_KIND} that boots with {found.kind}")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        entry = _read(image)
        if isinstance(entry, Refusal):
            raise image.error(
                f"it is {entry.kind}: {entry.reason}" if entry.kind else entry.reason, hint=entry.hint or None
            )
        refuse_options(context, _KIND)
        if context.bios == NO_BIOS:
            raise UsageError(
                f"--bios {NO_BIOS} has no meaning for {_KIND}", hint="what it boots calls a BIOS"
            )
        state, start = reset_state(layout.FIRMWARE_START), entry.segment << 4
        if not context.bios_rom:  # nothing will run: see BootContext
            return BootPlan(self.name, state, start)
        geometry = _geometry(image, entry) if entry.kind == HARD_DISK else NO_DRIVE
        boot = CdBoot(MEDIA.index(entry.kind), entry.segment, entry.sectors, entry.lba, geometry)
        shown = cd_drives(image.size, boot, context.further)
        rom = rom_with(context.bios_rom, memory_map(context.memory.size), shown)
        return BootPlan(self.name, state, start, writes=((layout.BIOS_ROM, rom),))


def _read(image: GuestImage) -> BootEntry | Refusal:
    data = image.data
    found: Iso | None = None
    if is_cd(data):
        found = read_iso(image.read, image.size)
    if found is None:
        return Refusal("it has no volume descriptor of a CD at byte 32769")
    if found.entry is None:
        hint = (
            "--boot bios boots it as a disk"
            if disk_mark(data) == BOOT_SIGNATURE
            else "build or copy it again"
        )
        return Refusal(found.problem, hint, _KIND)
    return found.entry


def _geometry(image: GuestImage, entry: BootEntry) -> Geometry:
    """Of an emulated hard disk: its one partition ends where the disk does (El Torito 1.0, 4.0)."""
    start = entry.lba * CD_SECTOR
    end = image.read(start + _PARTITION_END, 3)
    if len(end) == 3 and end[1] & 63:
        return Geometry(((end[1] & 0xC0) << 2 | end[2]) + 1, end[0] + 1, end[1] & 63)
    return hard_disk((image.size - start) // layout.SECTOR_SIZE)
