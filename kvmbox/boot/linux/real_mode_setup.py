"""Linux images that can be started in real mode only: their setup code runs, with the built-in BIOS under it.

Documentation/arch/x86/boot.rst, "Loading The Rest of The Kernel" and "Running the Kernel": setup code at a
64 KiB boundary below 640 KiB, its stack and heap behind it, then the command line; the kernel proper at
1 MiB. iPXE's ipxe.lkrn is such an image.
"""

from __future__ import annotations

import struct
from typing import Final

from kvmbox.base import layout
from kvmbox.boot.image import GuestImage
from kvmbox.boot.linux.setup_header import filled_in, setup_and_kernel
from kvmbox.boot.linux.video_mode import vid_mode
from kvmbox.boot.plan import NO_BIOS, BootContext, BootPlan
from kvmbox.boot.real_mode.entry_registers import reset_state
from kvmbox.boot.segments import LoadSegment, check_placement
from kvmbox.firmware.builtin_bios import Entry, rom_with
from kvmbox.firmware.memory_map import memory_map

_SETUP: Final = 0x10000
_MAX_SETUP: Final = 0x8000  # the first 32 KiB of the segment; heap and stack come behind
_HEAP_END: Final = 0xE000  # in the segment; the stack grows down from here
COMMAND_LINE_MAX: Final = 0x10000 - _HEAP_END - 1
_COMMAND_LINE: Final = _SETUP + _HEAP_END
_ENTRY: Final = Entry(cs=(_SETUP >> 4) + 0x20, ip=0, ss=_SETUP >> 4, sp=_HEAP_END, data=_SETUP >> 4)

_VID_MODE: Final = 0x1FA  # the offset of a field that a loader may fill in


def kernel_segment(image: GuestImage, context: BootContext) -> LoadSegment:
    """The kernel proper, where it belongs. Raises ImageError."""
    if context.bios == NO_BIOS:
        raise image.error(
            "it is a Linux image without a 32-bit entry: it starts in real mode, and calls a BIOS",
            hint="leave --bios none out",
        )
    setup, size = setup_and_kernel(image)
    if setup > _MAX_SETUP:
        raise image.error(
            f"its setup code has {setup} bytes; accepted are {_MAX_SETUP}", hint="build or copy it again"
        )
    segment = LoadSegment(0, setup, size, layout.HIGH_MEMORY_START, size)
    check_placement(image, (segment,), context.memory)
    return segment


def plan_setup(
    image: GuestImage,
    context: BootContext,
    segment: LoadSegment,
    command_line: bytes,
    initrd: tuple[int, int] | None,
) -> BootPlan:
    """The start in real mode. `command_line` has at most COMMAND_LINE_MAX bytes; `initrd` is (start, end)."""
    start, end = initrd or (0, 0)
    setup = filled_in(
        image.data[: segment.offset],
        heap_end=_HEAP_END,
        command_line=_COMMAND_LINE,
        initrd=start,
        initrd_size=end - start,
    )
    wanted = vid_mode(context.command_line or "")
    if wanted is not None:
        struct.pack_into("<H", setup, _VID_MODE, wanted)
    writes = [(_SETUP, bytes(setup)), (_COMMAND_LINE, command_line + b"\0")]
    if initrd is not None and context.initrd is not None:
        writes.append((start, context.initrd.data))
    if context.bios_rom:  # else nothing will run: see BootContext
        rom = rom_with(context.bios_rom, memory_map(context.memory.size), None, entry=_ENTRY)
        writes.append((layout.BIOS_ROM, rom))
    return BootPlan(
        "linux16",
        reset_state(layout.FIRMWARE_START),
        (_ENTRY.cs << 4) + _ENTRY.ip,
        (segment,),
        tuple(writes),
        () if initrd is None else (initrd,),
    )
