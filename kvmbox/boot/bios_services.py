"""The built-in BIOS beside a kernel that does not start with it: its ROM, and the vectors that lead there.

Kernels that loaders of PCs start may go back to real mode and call the BIOS. Xen does, for the memory map and
the video mode. The ROM's own start does not run: the data areas are as the firmware's tables have them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox import layout
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BUILTIN_BIOS, BootContext
from kvmbox.boot.segments import LoadSegment, check_firmware
from kvmbox.firmware.builtin_bios import rom_with, trap_vectors
from kvmbox.firmware.memory_map import memory_map


def bios_services(
    image: GuestImage, context: BootContext, segments: Sequence[LoadSegment]
) -> tuple[tuple[int, bytes], ...]:
    """ROM and vectors as writes, where the user asks for them; ImageError if a segment wants their place."""
    if context.bios != BUILTIN_BIOS or not context.bios_rom:
        return ()
    writes = (
        (0, trap_vectors(context.bios_rom)),
        (layout.BIOS_ROM, rom_with(context.bios_rom, memory_map(context.memory.size), None)),
    )
    check_firmware(image, segments, writes)
    return writes
