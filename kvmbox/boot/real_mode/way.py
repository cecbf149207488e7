"""The way of flat 16-bit images: any bytes, put at one address and entered there in real mode.

There is no boot area. No image asks for this way by its content: it has to be chosen.

Without a BIOS, all of memory but the image reads as zero, with two exceptions: the vectors at 0 lead to the
ROM of the built-in BIOS, which says what was called and ends the run. With `--bios builtin` the ROM starts
first, and enters the image as it would be entered without; the image is its disk, too.
"""

from __future__ import annotations

from kvmbox.base import layout
from kvmbox.boot.bios.way import refuse_options
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BUILTIN_BIOS, BootContext, BootPlan, Offer, Refusal
from kvmbox.boot.real_mode.entry_registers import real_mode_state, reset_state
from kvmbox.boot.real_mode.flat_image import place_entry, plan_flat
from kvmbox.boot.segments import LoadSegment
from kvmbox.firmware.builtin_bios import drives, rom_with, trap_vectors
from kvmbox.firmware.memory_map import memory_map


class Real:
    """See the module."""

    name: str = "real"

    def examine(self, image: GuestImage) -> Offer | Refusal:
        """See Way."""
        return Refusal("a flat 16-bit image is booted only where --boot real asks for it")

    def plan(self, image: GuestImage, context: BootContext) -> BootPlan:
        """See Way."""
        refuse_options(context, "a flat 16-bit image")
        segment, stack = plan_flat(image, context.load_address, context.memory)
        entry = place_entry(segment, stack, context.entry, context.segments)
        start = (entry.cs << 4) + entry.ip
        ranges = memory_map(context.memory.size)
        if context.bios == BUILTIN_BIOS and context.bios_rom:
            _check_bios_memory(image, segment)
            rom = rom_with(context.bios_rom, ranges, drives(len(image.data), context.further), entry=entry)
            state = reset_state(layout.FIRMWARE_START)
            return BootPlan(self.name, state, start, (segment,), ((layout.BIOS_ROM, rom),))
        writes = _traps(segment, context.bios_rom, context.memory.size) if context.bios_rom else ()
        return BootPlan(self.name, real_mode_state(entry), start, (segment,), writes, has_firmware=False)


def _traps(segment: LoadSegment, rom: bytes, memory_size: int) -> tuple[tuple[int, bytes], ...]:
    """The ROM that traps every call, and the vectors to it, as far as the image leaves them alone."""
    trap = rom_with(rom, memory_map(memory_size), None, trap=True)
    return (layout.BIOS_ROM, trap), (0, trap_vectors(rom)[: segment.address])


def _check_bios_memory(image: GuestImage, segment: LoadSegment) -> None:
    if segment.address < layout.BIOS_DATA_END or segment.end > layout.EBDA:
        raise image.error(
            f"{segment} overlaps the data of the BIOS, which are below {layout.BIOS_DATA_END:#x}"
            f" and from {layout.EBDA:#x} on",
            hint="load it between them: --load-address 0x7c00 is the usual one",
        )
