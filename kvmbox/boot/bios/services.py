"""What a kernel finds that a PC's boot loader has started: the BIOS is still there.

A Multiboot kernel may go back to real mode and call the BIOS (Xen does, for the memory map, disks and the
screen), or use the interrupt controllers and the timer as the BIOS has left them. So the ROM of the built-in
BIOS and its vector table lie in memory, and the plan says that the chips are to be in the state in which its
power-on code would leave them.

Linkers put the headers of an ELF file before its text. With a text at 1 MiB they lie in the ROM, which then
stands in their place, as on a PC. What else a kernel has there takes the place of the BIOS.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvmbox.base import layout
from kvmbox.boot.elf.headers import file_header
from kvmbox.boot.image import GuestImage
from kvmbox.boot.plan import BootContext
from kvmbox.boot.segments import LoadSegment
from kvmbox.firmware.builtin_bios import rom_with, served_drives, service_vectors
from kvmbox.firmware.memory_map import memory_map


def bios_services(
    image: GuestImage,
    context: BootContext,
    segments: Sequence[LoadSegment],
    bits: int | None,
    *,
    linear: bool,
) -> tuple[tuple[tuple[int, bytes], ...], str]:
    """Vector table and ROM as writes, none where there is no BIOS; and which segment takes their place, if
    one does. `bits` is the class of the ELF file that gave the segments, if one did. `linear` says that the
    kernel is started with a linear mode.
    """
    if not context.bios_rom or not context.firmware:
        return (), ""
    ranges, drives = memory_map(context.memory.size), served_drives(context.further)
    rom = rom_with(context.bios_rom, ranges, drives, linear=linear)
    writes = ((0, service_vectors(rom)), (layout.BIOS_ROM, rom))
    for address, data in writes:
        end = address + len(data)
        for one in segments:
            if one.address < end and address < one.end and not (bits and _has_headers(image, one, bits)):
                place = f"{address:#x}..{end:#x}"
                return (), f"the guest has no BIOS: {one} lies in its place, {place} (--bios none is silent)"
    return writes, ""


def _has_headers(image: GuestImage, segment: LoadSegment, bits: int) -> bool:
    """Whether what the segment has in the ROM are the headers of the file, and zeros behind them."""
    header = file_header(image.data, bits)
    used = header.program_offset + header.program_count * header.program_size
    inside = min(segment.end, layout.MIB) - segment.address
    return (
        segment.address >= layout.BIOS_ROM
        and segment.offset == 0
        and inside <= segment.file_size
        and not any(image.data[used:inside])
    )
