"""Linux' boot parameters, the "zero page" (Documentation/arch/x86/zero-page.rst, <asm/bootparam.h>).

The page is cleared, then gets the image's own setup header and what a loader has to tell. Without a frame
buffer, a text screen of 80 by 25 is told of, as after a BIOS: text goes to 0xB8000 whether or not somebody
looks. `heap_end_ptr` is left alone: it is for the setup code, which does not run.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from kvmbox.boot.linux.setup_header import HEADER_START, MAGIC
from kvmbox.boot.linux.video_mode import put_screen
from kvmbox.boot.plan import BootContext
from kvmbox.firmware.memory_map import memory_map

if TYPE_CHECKING:
    from kvmbox.firmware.video_modes import VideoMode

SIZE: Final = 4096

# screen_info (<linux/screen_info.h>)
_EXT_MEM_K: Final = 0x002
_VIDEO_MODE: Final = 0x006
_VIDEO_COLS: Final = 0x007
_VIDEO_LINES: Final = 0x00E
_IS_VGA: Final = 0x00F
_FONT_POINTS: Final = 0x010
_TEXT_MODE: Final = 3

_ACPI_RSDP: Final = 0x070
_EXT_RAMDISK_IMAGE: Final = 0x0C0  # and ext_ramdisk_size
_ALT_MEM_K: Final = 0x1E0
_E820_COUNT: Final = 0x1E8
_BOOT_FLAG: Final = 0x1FE
_MAGIC: Final = 0x202
_VERSION: Final = 0x206
_TYPE_OF_LOADER: Final = 0x210
_RAMDISK_IMAGE: Final = 0x218  # and ramdisk_size
_COMMAND_LINE: Final = 0x228
_E820_TABLE: Final = 0x2D0
_HEADER_END: Final = 0x290  # what comes behind is not part of the header

_E820_ENTRY: Final = struct.Struct("<QQI")
_NO_ASSIGNED_LOADER: Final = 0xFF
VMLINUX_VERSION: Final = 0x20F
"""The version that the header of a kernel without one gets: the one with all that is told here."""


def boot_params(
    context: BootContext,
    header: bytes | None,
    command_line: int,
    initrd: tuple[int, int] | None,
    mode: VideoMode | None = None,
) -> bytes:
    """The page. `header` is the image's setup header, None for an ELF file; `initrd` is (start, end). `mode`
    is that of the frame buffer, None for text.

    All addresses are guest-physical and below 4 GiB.
    """
    page = bytearray(SIZE)
    if header is None:
        struct.pack_into("<H", page, _BOOT_FLAG, 0xAA55)
        page[_MAGIC : _MAGIC + len(MAGIC)] = MAGIC
        struct.pack_into("<H", page, _VERSION, VMLINUX_VERSION)
    else:
        taken = header[: _HEADER_END - HEADER_START]
        page[HEADER_START : HEADER_START + len(taken)] = taken
    _, high = context.basic_memory
    struct.pack_into("<H", page, _EXT_MEM_K, min(high, 0xFFFF))
    struct.pack_into("<I", page, _ALT_MEM_K, high)
    page[_VIDEO_MODE] = _TEXT_MODE
    page[_VIDEO_COLS] = 80
    page[_VIDEO_LINES] = 25
    page[_IS_VGA] = 1
    struct.pack_into("<H", page, _FONT_POINTS, 16)
    if mode is not None:
        put_screen(page, mode)
    struct.pack_into("<Q", page, _ACPI_RSDP, context.rsdp)
    page[_TYPE_OF_LOADER] = _NO_ASSIGNED_LOADER
    struct.pack_into("<I", page, _COMMAND_LINE, command_line)
    start, end = initrd or (0, 0)
    struct.pack_into("<II", page, _RAMDISK_IMAGE, start, end - start)
    struct.pack_into("<II", page, _EXT_RAMDISK_IMAGE, 0, 0)
    ranges = memory_map(context.platform.memory_size)
    page[_E820_COUNT] = len(ranges)
    for index, one in enumerate(ranges):
        _E820_ENTRY.pack_into(page, _E820_TABLE + index * _E820_ENTRY.size, one.base, one.length, one.kind)
    return bytes(page)
