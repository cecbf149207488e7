"""What a kernel finds that a PC's boot loader has started: the BIOS is still there.

A Multiboot kernel may go back to real mode and call the BIOS (Xen does, for the memory map, disks and the
screen), or use the interrupt controllers and the timer as the BIOS has left them. So the ROM of the built-in
BIOS and its vector table lie in memory, and the plan says that the chips are to be in the state in which its
power-on code would leave them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox import layout
from kvmbox.boot.plan import BootContext
from kvmbox.boot.segments import LoadSegment
from kvmbox.firmware.builtin_bios import rom_with, served_drives, service_vectors
from kvmbox.firmware.memory_map import memory_map


def bios_services(
    context: BootContext, segments: Sequence[LoadSegment], *, linear: bool
) -> tuple[tuple[int, bytes], ...]:
    """Vector table and ROM as writes; none where there is no BIOS, or where the kernel takes their place.

    `linear` says that the kernel is started with a linear mode.
    """
    if not context.bios_rom or not context.firmware:
        return ()
    ranges, drives = memory_map(context.memory.size), served_drives(context.further)
    rom = rom_with(context.bios_rom, ranges, drives, linear=linear)
    writes = ((0, service_vectors(rom)), (layout.BIOS_ROM, rom))
    for address, data in writes:
        if any(one.address < address + len(data) and address < one.end for one in segments):
            return ()
    return writes
